"""`habana_frameworks.torch.hpex.kernels` and the raw ops under it."""

from __future__ import annotations

from typing import Any

import torch

from habana_frameworks.torch.card import trait

_library = torch.library.Library("hpu", "DEF")
_library.define(
    "sdpa_recomp_fwd(Tensor q, Tensor k, Tensor v, Tensor? mask, float p, float scale, bool is_causal, "
    "bool requires_backward, str softmax_mode, Tensor? valid_seq_len, str seq_padding_type) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define("control_edge_other_(Tensor self, Tensor(a) other) -> Tensor(a)")


def _recompute(
    q: Any, k: Any, v: Any, mask: Any, p: float, scale: float, is_causal: bool, backward: bool, mode: str, *_: Any
) -> Any:
    """Output, row maxima, reciprocal row sums, seed. Causal statistics are of another algorithm: not to be merged."""
    assert mode in ("None", "fast", "fp32"), mode
    group = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q.float() @ keys.float().transpose(-1, -2) * scale
    if is_causal:
        assert mask is None
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    if mask is not None:
        assert mask.shape[0] == q.shape[0], "the kernel does not broadcast over the batch"
        scores = scores + mask.float()
    maximum = scores.amax(-1, keepdim=True)
    weights = (scores - maximum).exp()
    total = weights.sum(-1, keepdim=True)
    output = ((weights / total) @ values.float()).to(q.dtype)
    other = maximum * 0 if is_causal else maximum
    return output, other, total if trait("wrong_linv") else 1 / total, torch.zeros(1)


def _fake(q: Any, k: Any, v: Any, *_: Any) -> Any:
    rows = q.new_empty((*q.shape[:3], 1), dtype=torch.float32)
    return q.new_empty(q.shape), rows, torch.empty_like(rows), q.new_empty(1)


_library.impl("sdpa_recomp_fwd", _recompute, "CPU")
_library.impl("sdpa_recomp_fwd", _fake, "Meta")
_library.impl("control_edge_other_", lambda before, other: other.view(other.shape), "CPU")


def _attend(q: Any, k: Any, v: Any, mask: Any, causal: bool, scale: Any, mode: str) -> Any:
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.ops.hpu.sdpa_recomp_fwd(q, k, v, mask, 0.0, scale, causal, False, mode, None, "left")[0]


if trait("old_sdpa"):

    class FusedSDPA(torch.autograd.Function):
        """Of release 1.19."""

        @staticmethod
        def forward(
            ctx: Any, q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
            scale: Any = None, softmax_mode: str = "None", recompute_mode: Any = None, valid_seq_len: Any = None,
            seq_padding_type: str = "left", return_dropout_mask: bool = False, return_attn_probs: bool = False,
        ) -> Any:  # fmt: skip
            """Thirteen positions."""
            return _attend(q, k, v, attn_mask, is_causal, scale, softmax_mode)

else:

    class FusedSDPA(torch.autograd.Function):  # type: ignore[no-redef]
        """From release 1.22 on; its last two have no defaults here, as serving stacks always pass them."""

        @staticmethod
        def forward(
            ctx: Any, q: Any, k: Any, v: Any, attn_mask: Any, dropout_p: float, is_causal: bool, scale: Any,
            softmax_mode: str, recompute_mode: Any, valid_seq_len: Any, seq_padding_type: str,
            return_dropout_mask: bool, return_attn_probs: bool, window_size: Any, sinks: Any,
        ) -> Any:  # fmt: skip
            """Fifteen positions."""
            assert tuple(window_size) == (-1, -1)
            assert sinks is None
            return _attend(q, k, v, attn_mask, is_causal, scale, softmax_mode)


class RotaryPosEmbeddingHelperV2(torch.autograd.Function):
    """Blockwise rotation of [B, h, T, D] with tables [1, 1, T, D]."""

    @staticmethod
    def forward(ctx: Any, p: Any, cos: Any, sin: Any, position_ids: Any) -> Any:
        """Rotates halves."""
        first, second = p.chunk(2, dim=-1)
        return p * cos + torch.cat([-second, first], dim=-1) * sin
