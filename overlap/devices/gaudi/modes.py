"""What the host adds: launches, fences, and compiling when a shape is new.

    eager       every call is a recipe of its own; nothing is fused, nothing runs side by side
    lazy        calls are collected until a mark; each recipe is looked up and launched
    compile     regions compiled by torch.compile, launched one by one
    hpu_graph   recorded recipes, replayed
The host runs ahead of the device, so that it shows only where it is slower than the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from overlap.devices.gaudi.machine import HostConstants
from overlap.devices.gaudi.units import Unit
from overlap.errors import WorkloadError
from overlap.program import Engine

NS_PER_US = 1e3
NS_PER_S = 1e9


def launch_times(units: Sequence[Unit], host: HostConstants, mode: str) -> dict[int, float]:
    """When the host has launched each recipe, ns after it began with the first."""
    calls: dict[int, int] = {}
    collectives: dict[int, int] = {}
    for unit in units:
        is_collective = unit.engine is Engine.NIC
        counted = collectives if is_collective else calls
        # To a lazy tensor a view is a call like others; unfused units have one call each.
        here = 1 if is_collective or unit.part or mode == "eager" else len(unit.kernel.calls)
        counted[unit.recipe] = counted.get(unit.recipe, 0) + here
    now_us, times = 0.0, {}
    for recipe in dict.fromkeys(unit.recipe for unit in units):
        now_us += _launch_us(host, mode, calls.get(recipe, 0))
        times[recipe] = now_us * NS_PER_US
        now_us += collectives.get(recipe, 0) * _collective_us(host, mode)
    return times


def least_launches(host: HostConstants, mode: str) -> tuple[float, float]:
    """What launching a recipe, and a collective behind it, costs the host at least, ns."""
    return _launch_us(host, mode, 0 if mode == "lazy" else 1) * NS_PER_US, _collective_us(host, mode) * NS_PER_US


def _collective_us(host: HostConstants, mode: str) -> float:
    """A collective at the end of a recipe is a launch of its own."""
    return host.graph_recipe_us if mode == "hpu_graph" else host.collective_us


def _launch_us(host: HostConstants, mode: str, calls: int) -> float:
    """What one recipe made of `calls` ATen calls costs the host."""
    if mode == "eager":
        return calls * host.eager_op_us
    if mode == "lazy":
        return host.lazy_recipe_us + calls * host.lazy_op_us
    return host.compile_recipe_us if mode == "compile" else host.graph_recipe_us


def stream_ns(
    lengths: Iterable[int], buckets: Sequence[int], run_ns: Callable[[int], float], recompile_s: float
) -> tuple[float, int]:
    """Time of requests of `lengths` one after the other, and how often a recipe was compiled.

    Each is padded to the smallest of `buckets` that holds it; without buckets it runs at its own length. The first
    request of a shape compiles it, later ones find it in the recipe cache.

    Raises:
        WorkloadError: a length is above the largest bucket.
    """
    seen: set[int] = set()
    total_ns = 0.0
    for length in lengths:
        shape = length
        if buckets:
            fitting = [bucket for bucket in buckets if bucket >= length]
            if not fitting:
                raise WorkloadError(f"{length} tokens, the largest bucket has {max(buckets)}", "add a larger bucket")
            shape = min(fitting)
        if shape not in seen:
            seen.add(shape)
            total_ns += recompile_s * NS_PER_S
        total_ns += run_ns(shape)
    return total_ns, len(seen)
