"""`habana_frameworks.torch.utils.internal`."""

from __future__ import annotations

from habana_frameworks.torch import card


def is_lazy() -> bool:
    """Whether the bridge accumulates ops; what it is told afterwards changes nothing."""
    return card.lazy() != card.trait("stubborn")
