"""Time of a sum over the cards of one box.

Every card has its own links to every other, so a ring is not needed: each card sends a share of the tensor to each
peer and collects it (reduce-scatter), then the sums go back the same way (all-gather). Per direction a card moves
2 (n-1)/n of the tensor over (n-1) peers' links.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NicConstants:
    """`chips/*/nic.yaml`."""

    link_gb_per_s: float
    links_per_peer: int
    efficiency: float
    base_ns: float
    per_peer_ns: float


def all_reduce_ns(constants: NicConstants, nbytes: int, degree: int) -> float:
    """Time of an all-reduce of `nbytes` over `degree` cards of one box; 0 for one card."""
    if degree < 2:
        return 0.0
    peers = degree - 1
    bytes_per_ns = constants.link_gb_per_s * constants.links_per_peer * peers * constants.efficiency
    moved = 2 * nbytes * peers / degree
    return constants.base_ns + constants.per_peer_ns * peers + moved / bytes_per_ns
