"""Time of vector work on the TPC cores.

Terms
    vector: 256 bytes, 64 lanes of fp32 or 128 of bf16; one plain operation on it takes a core one cycle.
    row: the elements along the fastest dimension. A reduction ends in a shuffle tree once per row and never splits a
        row between cores.
    port: how a core reaches memory; 64 bytes per cycle, for reads and writes together.

Method: cycles of a call are (plain operations + special functions) x vectors + row work x rows (`ops.yaml`), those of
a kernel the sum over its calls. The index space is shared out whole rows (where a call reduces) or whole vectors at a
time; the busiest core sets the time, and the longer of arithmetic and port decides, because loads are issued ahead.
Bytes that cross the memory's own limits are the simulator's business, not this module's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil, prod

import msgspec

from overlap.program import CallWork, Geometry

FP32_BYTES = 4


@dataclass(frozen=True)
class TpcConstants:
    """`chips/*/tpc.yaml`."""

    cores: int
    clock_mhz: float
    vector_bytes: int
    port_bytes_per_cycle: float
    node_ns: float
    exp_cycles: float
    reciprocal_cycles: float
    sqrt_cycles: float
    rsqrt_cycles: float
    tanh_cycles: float
    sigmoid_cycles: float
    reduce_cycles: float
    narrow_function_scale: float
    fused_softmax_cycles: float
    fused_fast_softmax_cycles: float
    fused_mask_slowdown: float
    unknown_cycles: float

    def function_cycles(self, name: str) -> float:
        """Cycles of a special function per vector of fp32."""
        return float(getattr(self, f"{name}_cycles"))


class OpCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `ops.yaml`."""

    vector: float = 0.0
    functions: tuple[str, ...] = ()
    reductions: int = 0
    row_functions: tuple[str, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class VectorWork:
    """Cycles of a kernel over all cores, and in how many units they can be shared out; `unknown` calls by name."""

    cycles: float
    units: int
    unknown: tuple[str, ...] = ()


@cache
def op_costs() -> dict[str, OpCost]:
    """`ops.yaml`."""
    text = files("overlap.devices.gaudi").joinpath("ops.yaml").read_bytes()
    return msgspec.yaml.decode(text, type=dict[str, OpCost])


def call_cost(name: str) -> OpCost | None:
    """Cost of a call by its ATen name; None if nobody has written it down."""
    costs = op_costs()
    return costs.get(name) or costs.get(name.removesuffix("_"))


def vector_work(constants: TpcConstants, calls: Sequence[CallWork]) -> VectorWork:
    """Arithmetic of a kernel made of `calls`."""
    cycles, units = 0.0, 0
    unknown = []
    for call in calls:
        entry = call_cost(call.name)
        if entry is None:
            unknown.append(call.name)
            entry = OpCost(vector=constants.unknown_cycles)
        shape = _widest(call)
        rows, vectors = rows_and_vectors(constants, shape, entry.wide)
        cycles += vectors * _per_vector(constants, entry, shape) + rows * _per_row(constants, entry)
        share = rows if entry.reductions else vectors
        units = min(units, share) if units else share
    return VectorWork(cycles, max(units, 1), tuple(unknown))


def busiest_share(constants: TpcConstants, units: int) -> float:
    """Share of the work that the busiest core gets."""
    return ceil(units / min(constants.cores, units)) / units


def arithmetic_ns(constants: TpcConstants, work: VectorWork) -> float:
    """Time of the busiest core's arithmetic, without the fixed cost of a node."""
    return work.cycles * busiest_share(constants, work.units) * 1e3 / constants.clock_mhz


def port_gb_per_s(constants: TpcConstants, units: int) -> float:
    """What all cores' ports move together if the busiest one decides."""
    return constants.port_bytes_per_cycle * constants.clock_mhz / 1e3 / busiest_share(constants, units)


def rows_and_vectors(constants: TpcConstants, shape: Geometry, wide: bool = False) -> tuple[int, int]:
    """Rows of a tensor, and its vectors if every row is padded to whole ones; a core walks the fastest dimension."""
    size = shape.size or (1,)
    row = size[-1]
    itemsize = FP32_BYTES if wide else shape.dtype.itemsize
    vectors_of_row = ceil(row * itemsize / constants.vector_bytes)
    rows = prod(size[:-1])
    return rows, rows * vectors_of_row


def _widest(call: CallWork) -> Geometry:
    """The tensor that decides the work: the largest, in the widest type that takes part."""
    tensors = [*call.given, *call.made]
    largest = max(tensors, key=lambda one: prod(one.size))
    same = [one for one in tensors if prod(one.size) == prod(largest.size)]
    return max(same, key=lambda one: one.dtype.itemsize)


def _per_vector(constants: TpcConstants, entry: OpCost, shape: Geometry) -> float:
    functions = sum(constants.function_cycles(name) for name in entry.functions)
    if shape.dtype.itemsize < FP32_BYTES and not entry.wide:
        # Two fp32 vectors for one of narrow lanes, unless there is a narrow table.
        functions *= 2 * constants.narrow_function_scale
    return entry.vector + functions


def _per_row(constants: TpcConstants, entry: OpCost) -> float:
    row_functions = sum(constants.function_cycles(name) for name in entry.row_functions)
    return entry.reductions * constants.reduce_cycles + row_functions
