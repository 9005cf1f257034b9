"""Which bytes of a unit cross HBM and which stay on the die.

SRAM (Gaudi2) holds only what passes between the units of one bundle, if two slices of it fit; anything else goes to HBM
and comes back. A cache (Gaudi3) holds whatever was touched last: a read hits if no more than the cache's size went
through it since the tensor was touched before. A tensor that nobody needs after reads that all hit is not written back.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from overlap.devices.gaudi.bundles import Bundle
from overlap.devices.gaudi.memory import MemoryConstants
from overlap.devices.gaudi.units import Unit


@dataclass(slots=True)
class Traffic:
    """Bytes of one unit; `die` counts reads and writes, those of the far cache more than once."""

    hbm_read: float = 0.0
    hbm_write: float = 0.0
    die: float = 0.0


def place(
    units: Sequence[Unit],
    bundles: Sequence[Bundle],
    memory: MemoryConstants,
    kept: Collection[int],
    reads: Mapping[int, Sequence[float]] | None = None,
) -> list[Traffic]:
    """Traffic of every unit; `kept` are roots that must be in HBM in the end (inputs and outputs).

    `reads` says, for units that read operands more than once, how often each of the first ones comes from HBM.
    """
    again = reads or {}
    inside = _inside_bundles(units, bundles, memory)
    slices = [bundle.slices for bundle in bundles for _ in range(bundle.first, bundle.end)]
    found = [Traffic() for _ in units]
    last_touch: dict[Hashable, float] = {}
    missed: set[int] = set(kept)
    passed = 0.0
    for number, unit in enumerate(units):
        traffic = found[number]
        times = again.get(number, ())
        regions = unit.regions or [root for root, _ in unit.reads]
        for position, (root, nbytes) in enumerate(unit.reads):
            if (number, root) in inside or _hits(regions[position], nbytes, passed, last_touch, memory):
                traffic.die += memory.die_cost(nbytes / slices[number]) * slices[number]
            else:
                traffic.hbm_read += nbytes * (times[position] if position < len(times) else 1.0)
                missed.add(root)
        touched = zip((*regions, *(root for root, _ in unit.writes)), (*unit.reads, *unit.writes), strict=True)
        for region, (_, nbytes) in touched:
            passed += nbytes
            last_touch[region] = passed
    for number, unit in enumerate(units):
        for root, nbytes in unit.writes:
            if root not in missed and _written_on_die(number, root, nbytes, inside, memory):
                found[number].die += memory.die_cost(nbytes / slices[number]) * slices[number]
            else:
                found[number].hbm_write += nbytes
    return found


def _inside_bundles(units: Sequence[Unit], bundles: Sequence[Bundle], memory: MemoryConstants) -> set[tuple[int, int]]:
    """(unit, root) of tensors that pass inside a bundle and whose slices fit twice; readers and writers."""
    inside: set[tuple[int, int]] = set()
    for bundle in bundles:
        members = range(bundle.first, bundle.end)
        if len(members) < 2:
            continue
        writers = {root: (number, nbytes) for number in members for root, nbytes in units[number].writes}
        for number in members:
            for root, _ in units[number].reads:
                writer = writers.get(root)
                if writer and writer[0] < number and 2 * writer[1] <= bundle.slices * memory.die_bytes:
                    inside.update({(number, root), (writer[0], root)})
    return inside


def _hits(
    region: Hashable, nbytes: int, passed: float, last_touch: Mapping[Hashable, float], memory: MemoryConstants
) -> bool:
    """Whether a read finds its tensor in the cache."""
    if not memory.die_is_cache or 2 * nbytes > memory.die_bytes:
        return False
    touched = last_touch.get(region)
    return touched is not None and passed - touched + nbytes <= memory.die_bytes


def _written_on_die(number: int, root: int, nbytes: int, inside: set[tuple[int, int]], memory: MemoryConstants) -> bool:
    return (number, root) in inside or (memory.die_is_cache and 2 * nbytes <= memory.die_bytes)
