"""`habana_frameworks.torch.hpu`, which becomes `torch.hpu`."""

from __future__ import annotations

from typing import Any

import torch

from habana_frameworks.torch.card import CARD, GAUDI2_BYTES, lazy, trait
from habana_frameworks.torch.hpu import memory as memory
from habana_frameworks.torch.hpu.memory import (
    max_memory_allocated as max_memory_allocated,
)
from habana_frameworks.torch.hpu.memory import (
    mem_get_info as mem_get_info,
)
from habana_frameworks.torch.hpu.memory import (
    memory_stats as memory_stats,
)
from habana_frameworks.torch.hpu.memory import (
    reset_peak_memory_stats as reset_peak_memory_stats,
)


def is_available() -> bool:
    """Whether a card is there."""
    return not trait("no_card")


def device_count() -> int:
    """One or none."""
    return int(is_available())


def synchronize(device: Any = None) -> None:
    """Everything was done when it was launched; but whoever did not wait could not know."""
    CARD.busy = False


def get_device_name(device: Any = None) -> str:
    """As release 1.19 gives it."""
    return "GAUDI2"


class Event:
    """A moment on the card's clock."""

    def __init__(self, enable_timing: bool = False) -> None:
        if trait("no_events") and enable_timing:
            raise TypeError("Event() got an unexpected keyword argument 'enable_timing'")
        self._at_ns = -1

    def record(self, stream: Any = None) -> None:
        """Now."""
        self._at_ns = CARD.clock_ns

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds."""
        return (end._at_ns - self._at_ns) / 1e6


if lazy():
    from habana_frameworks.torch.hpu.graphs import wrap_in_hpu_graph as wrap_in_hpu_graph

__all__ = ["GAUDI2_BYTES", "torch"]
