"""The sum over the cards of a tensor-parallel layer, as one op, so that a capture sees what the network has to carry.

One process holds one card's shard and has no peers: run here, the op leaves its tensor as it is, and the fp32 reference
of a shard leaves it out likewise. What it costs is for devices that have, or model, a network.
"""

from __future__ import annotations

import torch


@torch.library.custom_op("overlap::all_reduce", mutates_args=("partial",))
def all_reduce(partial: torch.Tensor, degree: int) -> None:
    """Replace `partial` by its sum over `degree` cards, in place."""


@all_reduce.register_fake
def _(partial: torch.Tensor, degree: int) -> None:
    return None
