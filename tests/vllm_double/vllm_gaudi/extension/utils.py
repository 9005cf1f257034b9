"""The stack's attention as a module of its own, on PyTorch's SDPA."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


class ModuleFusedSDPA(torch.nn.Module):
    """Signature and rules of the seam; keeps the calls that it got, if `calls` is a list."""

    def __init__(self, fusedSDPA):
        super().__init__()
        self._hpu_kernel_fsdpa = fusedSDPA
        self.calls = None

    def forward(
        self,
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        scale,
        softmax_mode,
        recompute_mode,
        valid_sequence_lengths,
        padding_side="left",
        window_size=None,
        sinks=None,
    ):
        if self.calls is not None:
            self.calls.append((query, key, value, attn_mask, is_causal, valid_sequence_lengths, padding_side))
        if attn_mask is not None:
            is_causal = False  # a mask says it all
        if is_causal and query.shape[2] != key.shape[2]:
            raise AssertionError("the kernel's causal mode begins at the first key")
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=True if query.shape[1] != key.shape[1] else False,  # noqa: SIM210 (a compiler knows symbols)
        )
