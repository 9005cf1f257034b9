"""`torch.hpu.memory`."""

from __future__ import annotations

from habana_frameworks.torch.card import CARD, GAUDI2_BYTES, trait


def memory_stats(device: object = None) -> dict[str, int]:
    """Under the names of the bridge."""
    most = 2 * GAUDI2_BYTES if trait("greedy") else CARD.max_in_use
    return {"Limit": GAUDI2_BYTES, "InUse": CARD.in_use, "MaxInUse": most, "NumAllocs": 1, "NumFrees": 0}


def mem_get_info(device: object = None) -> tuple[int, int]:
    """Free and total."""
    return GAUDI2_BYTES - CARD.in_use, GAUDI2_BYTES


def max_memory_allocated(device: object = None) -> int:
    """Most that was in use."""
    return CARD.max_in_use


def reset_peak_memory_stats(device: object = None) -> None:
    """Begin anew."""
    CARD.max_in_use = CARD.in_use


if not trait("no_extended"):

    def _extended_memory_summary_dict() -> dict[str, int]:
        return {
            "limit": GAUDI2_BYTES,
            "in_use": CARD.in_use,
            "workspace": 2**19,
            "last_workspace": 2**18,
            "max_in_use": CARD.max_in_use,
        }
