"""From a program to units: what the graph compiler would see as one node each, before it slices anything.

Passes, in this order, each with its switch:
    dead        what a unit writes and nobody reads any more (a buffer that was reused in place) is not written
    logical     a copy that only renames dimensions of size 1 is no node at all
    fuser       the vector calls of an op become one TPC node; without it every call is a node of its own
    dma         copies go to the DMA engines where the chip has any for graph nodes
    attention   a fused attention becomes chains of blocks (`chains.py`), not done here: it stays one unit

A recipe ends with its graph, and with every collective: the network's work is launched on its own. An op that has no
kernel on the device (`cpu_ops`) breaks the graph before and behind it: its tensors go to the host and back. Eager mode
fuses nothing and makes every unit a recipe.

Contract: units are in the order that their ops were given in; `needs` holds positions of earlier units.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from overlap.devices.gaudi.kernels import CPU_PART, Accesses, Costs
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.program import CallWork, Engine, Geometry, Kernel, Op, Program

# (root, bytes) pairs.
Bytes = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Unit:
    """One node before slicing.

    `reads` and `writes` map roots to bytes; below 0 is memory between two calls of an op that was not fused. `regions`
    tell apart which part of an input is read, one per entry of `reads`; none where the root says it all.
    """

    op: int
    engine: Engine
    kernel: Kernel
    calls: tuple[CallWork, ...]
    part: str
    needs: tuple[int, ...]
    reads: Bytes
    writes: Bytes
    recipe: int
    regions: tuple[Hashable, ...] = ()


def make_units(program: Program, order: Sequence[int], costs: Costs, config: GaudiConfig) -> list[Unit]:
    """Units of `program` in `order`."""
    units: list[Unit] = []
    last: dict[int, tuple[int, ...]] = {}
    same = renamed(program)
    names = _Names(program, order, {target: source for target, source in same.values() if source >= 0})
    fuser = config.fuser and config.mode != "eager"
    dma = costs.machine.memory.dma_engines > 0
    on_cpu = cpu_ops(program, config)
    recipes = _recipes(program, order, on_cpu)
    for number, (index, recipe) in enumerate(zip(order, recipes, strict=True)):
        op = program.ops[index]
        before = program.predecessors[index]
        needs = last[before[0]] if len(before) == 1 else tuple({unit: None for one in before for unit in last[one]})
        if index in same:
            last[index] = needs
            continue
        reads, writes, regions = names.traffic(op, costs.accesses(op), number)
        if index in on_cpu:
            units.append(
                Unit(index, Engine.DMA, op.kernel, op.kernel.work, CPU_PART, needs, reads, writes, recipe, regions)
            )
        elif not fuser and op.engine is Engine.TPC and len(op.kernel.work) > 1:
            units += _unfused(op, index, needs, recipe, len(units), reads, writes)
        else:
            engine = Engine.DMA if dma and op.kernel.kind == "copy" else op.kernel.engine
            units.append(Unit(index, engine, op.kernel, op.kernel.work, "", needs, reads, writes, recipe, regions))
        last[index] = (len(units) - 1,)
    if config.mode == "eager":
        for number, unit in enumerate(units):
            unit.recipe = number
    return units


def cpu_ops(program: Program, config: GaudiConfig) -> set[int]:
    """Ops that hold a call which the device has no kernel for."""
    names = set(config.cpu_ops)
    if not names:
        return set()
    return {index for index, op in enumerate(program.ops) if any(call.name in names for call in op.kernel.work)}


def _recipes(program: Program, order: Sequence[int], on_cpu: Collection[int]) -> Iterator[int]:
    """The recipe of each op: a new one with each graph, behind a collective, and around an op of the CPU."""
    recipe, graph, ended = -1, -1, False
    for index in order:
        op = program.ops[index]
        cpu = index in on_cpu
        if op.graph != graph or ended or cpu:
            recipe, graph = recipe + 1, op.graph
        ended = cpu or op.kernel.engine is Engine.NIC
        yield recipe


def is_logical(op: Op) -> bool:
    """Whether a copy only copies a tensor into one of the same layout, which a compiler does by renaming.

    Only dimensions of more than one element count: with one token, [heads, tokens] and [tokens, heads] are the same.
    """
    if len(op.kernel.work) != 1 or op.kernel.work[0].name != "copy_":
        return False
    target, source = op.kernel.work[0].given[:2]
    return target.dtype == source.dtype and _dense(target) == _dense(source) is not None


def _dense(tensor: Geometry) -> tuple[int, ...] | None:
    """Sizes of the dimensions that matter, outermost first, of a tensor without gaps; None for any other."""
    dims = sorted(((stride, size) for stride, size in zip(tensor.stride, tensor.size, strict=True) if size > 1))
    step = 1
    for stride, size in dims:
        if stride != step:
            return None
        step *= size
    order = tuple(size for size in tensor.size if size > 1)
    return order if order == tuple(size for _, size in reversed(dims)) else None


def renamed(program: Program) -> dict[int, tuple[int, int]]:
    """Ops that only rename: target root, and the root that it is from then on, -1 where only a part of it is renamed.

    What must be in its own memory in the end (inputs, such as a cache, and outputs) is really copied.
    """
    kept = {ref.root for ref in program.outputs.values()}
    found = {}
    for index, op in enumerate(program.ops):
        if op.kernel.kind != "copy" or not op.writes:
            continue
        target, source = op.refs[op.writes[0]], op.refs[op.reads[0]]
        spec = program.roots[target.root]
        if not spec.name and target.root not in kept and is_logical(op):
            found[index] = (target.root, source.root if target.bytes == spec.bytes else -1)
    return found


class _Names:
    """Roots as a compiler sees them: renamed ones by what they were, and what nobody reads any more left out."""

    def __init__(self, program: Program, order: Sequence[int], alias: Mapping[int, int]) -> None:
        self._sizes = [spec.bytes for spec in program.roots]
        self._inputs = {root for root, spec in enumerate(program.roots) if spec.name}
        self._alias: dict[int, int] = {}
        for target, source in alias.items():
            self._alias[target] = self._alias.get(source, source)
        # Position in `order` of the last op that reads each root; beyond the end for what must outlive the program.
        self._last_read: dict[int, int] = {}
        for number, index in enumerate(order):
            op = program.ops[index]
            for position in op.reads:
                self._last_read[self._name(op.refs[position].root)] = number
        for root in self._inputs.union(ref.root for ref in program.outputs.values()):
            self._last_read[root] = len(order)

    def traffic(
        self, op: Op, accesses: tuple[Accesses, Accesses], number: int
    ) -> tuple[Bytes, Bytes, tuple[Hashable, ...]]:
        """Roots with the bytes that `op`, at position `number`, reads and writes, and the regions that it reads.

        Never more than a root has.
        """
        refs, sizes, inputs = op.refs, self._sizes, self._inputs
        reads: dict[int, int] = {}
        writes: dict[int, int] = {}
        regions: dict[int, Hashable] = {}
        for position, nbytes in accesses[0]:
            ref = refs[position]
            root = self._name(ref[0])
            if root in reads:
                reads[root] = min(reads[root] + nbytes, sizes[root])
            else:
                reads[root] = nbytes
                regions[root] = (root, ref.offset, ref.size) if root in inputs else root
        for position, nbytes in accesses[1]:
            root = self._name(refs[position][0])
            writes[root] = min(writes[root] + nbytes, sizes[root]) if root in writes else nbytes
        for root, nbytes in zip(op.outputs, op.kernel.output_bytes, strict=True):
            writes[root] = nbytes
        last = self._last_read
        live = tuple(item for item in writes.items() if last.get(item[0], -1) > number)
        return tuple(reads.items()), live, tuple(regions.values())

    def _name(self, root: int) -> int:
        return self._alias.get(root, root) if self._alias else root


def _unfused(
    op: Op, index: int, needs: tuple[int, ...], recipe: int, first: int, reads: Bytes, writes: Bytes
) -> list[Unit]:
    """One unit per call, each waiting for the one before it; values between them go through memory."""
    calls = op.kernel.work
    units = []
    for number, call in enumerate(calls):
        given = sum(_bytes(one) for one in call.given)
        made = sum(_bytes(one) for one in call.made)
        is_last = number == len(calls) - 1
        units.append(
            Unit(
                op=index,
                engine=Engine.TPC,
                kernel=op.kernel,
                calls=(call,),
                part=f".{call.name}",
                needs=needs if number == 0 else (first + number - 1,),
                # `~` of the unit that writes it: a number that no root and no other unit has.
                reads=reads if number == 0 else ((~(first + number - 1), given),),
                writes=writes if is_last else ((~(first + number), made),),
                recipe=recipe,
            )
        )
    return units


def _bytes(tensor: Geometry) -> int:
    return prod(tensor.size) * tensor.dtype.itemsize
