"""From the ATen calls of one op to its `Kernel`: engine, kind, work and content hash.

An op is matrix work (all of its compute calls are matrix products), one fused attention, or vector work. Matrix and
vector work in one op is an error: no engine could run it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from overlap.errors import ProgramError
from overlap.program import Call, CallWork, Engine, Geometry, Kernel, Ref

MATRIX = {"mm": "gemm", "addmm": "gemm", "bmm": "bgemm", "baddbmm": "bgemm"}
FUSED = {"fused_attention", "fused_partial"}
# Calls that move data between cards.
COLLECTIVE = {"all_reduce"}
ALLOCATE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
COPY = {"copy_", "clone"}
# Calls that overwrite a tensor without reading what was there.
OVERWRITE = {"copy_", "fill_", "zero_"}

_interned: dict[str, Kernel] = {}


@dataclass
class OpDraft:
    """An op while it is being recorded; slots are numbered in order of appearance."""

    name: str
    phase: str
    layer: int
    chunk: int
    graph: int
    calls: list[Call] = field(default_factory=list)
    work: list[CallWork] = field(default_factory=list)
    refs: list[Ref] = field(default_factory=list)
    ref_slots: list[int] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    created: dict[int, int] = field(default_factory=dict)
    local: dict[int, int] = field(default_factory=dict)
    slots: int = 0

    def new_slot(self) -> int:
        """Number of the next local value."""
        self.slots += 1
        return self.slots - 1


def base_name(func: Any) -> str:
    """`mm` for `aten.mm.default` and `aten.mm.out`."""
    return str(func._schema.name).rpartition("::")[2]


def call_work(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Sequence[torch.Tensor]) -> CallWork:
    """Cost of one ATen call from the shapes it saw (flops by `torch.utils.flop_counter`)."""
    name = base_name(func)
    if name in ALLOCATE:
        return CallWork(name)
    tensors = [*tensors_in(args), *tensors_in(kwargs)]
    given, made = tuple(map(_geometry, tensors)), tuple(map(_geometry, outputs))
    formula = flop_registry.get(func.overloadpacket)
    if formula is not None:
        plain = {key: value for key, value in kwargs.items() if key != "out"}
        return CallWork(name, given, made, flops=int(formula(*args, **plain, out_val=outputs[0])))
    elements = max((tensor.numel() for tensor in [*tensors, *outputs]), default=0)
    return CallWork(name, given, made, elements=elements)


def _geometry(tensor: torch.Tensor) -> Geometry:
    return Geometry(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in nested tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def classify(draft: OpDraft) -> tuple[Engine, str]:
    """Engine and kind of an op.

    Raises:
        ProgramError: the op holds matrix and vector work, or no work at all.
    """
    names = [work.name for work in draft.work if work.name not in ALLOCATE]
    if not names:
        raise ProgramError(f"op {draft.name} does no work", "views need no op around them")
    if all(name in MATRIX for name in names):
        return Engine.MME, MATRIX[names[0]]
    if names[0] in FUSED and len(names) == 1:
        return Engine.MME, "fused_attention"
    if all(name in COLLECTIVE for name in names):
        return Engine.NIC, "all_reduce"
    special = {*MATRIX, *FUSED, *COLLECTIVE}
    mixed = sorted(name for name in names if name in special)
    if mixed:
        other = sorted({name for name in names if name not in special})
        raise ProgramError(
            f"op {draft.name} mixes matrix work ({', '.join(mixed)}) with vector work ({', '.join(other)})",
            "give each an op of its own",
        )
    return Engine.TPC, "copy" if all(name in COPY for name in names) else "vector"


def build_kernel(draft: OpDraft, outputs: tuple[int, ...], root_bytes: dict[int, int]) -> Kernel:
    """Kernel of a finished draft whose created roots `outputs` are used outside of it.

    Kernels with equal content are one object, so that times measured for one hold for all.
    """
    engine, kind = classify(draft)
    text = _content(draft, outputs, engine)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    known = _interned.get(key)
    if known is not None:
        return known
    output_bytes = tuple(root_bytes[root] for root in outputs)
    kernel = Kernel(
        key=key,
        engine=engine,
        kind=kind,
        calls=tuple(draft.calls),
        inputs=len(draft.refs),
        slots=draft.slots,
        outputs=tuple(draft.created[root] for root in outputs),
        output_bytes=output_bytes,
        flops=sum(work.flops for work in draft.work),
        elements=sum(work.elements for work in draft.work),
        read_bytes=sum(draft.refs[position].bytes for position in draft.read),
        write_bytes=sum(output_bytes) + sum(draft.refs[position].bytes for position in draft.written),
        scratch_bytes=sum(root_bytes[root] for root in draft.created if root not in outputs),
        work=tuple(work for work in draft.work if work.name not in ALLOCATE),
    )
    return _interned.setdefault(key, kernel)


def _content(draft: OpDraft, outputs: tuple[int, ...], engine: Engine) -> str:
    """All that decides what the op does and costs; roots, offsets and names do not."""
    lines = [f"{engine.value} {draft.slots}"]
    lines += [f"{ref.size} {ref.stride} {ref.dtype}" for ref in draft.refs]
    lines += [f"{call.func} {call.args} {call.kwargs} {call.out}" for call in draft.calls]
    lines.append(str([draft.created[root] for root in outputs]))
    return "\n".join(lines)
