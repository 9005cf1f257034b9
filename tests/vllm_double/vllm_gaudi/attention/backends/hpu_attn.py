"""Where the seam is: the name that is bound here is looked up whenever a layer is made."""

from __future__ import annotations

import torch

from vllm_gaudi.extension.utils import ModuleFusedSDPA


class HPUAttentionImpl(torch.nn.Module):
    """Makes the attention of one layer."""

    def __init__(self, num_heads, head_size, scale, num_kv_heads):
        super().__init__()
        self.num_heads, self.head_size, self.scale, self.num_kv_heads = num_heads, head_size, scale, num_kv_heads
        self.fused_scaled_dot_product_attention = ModuleFusedSDPA(None)

    def forward(self, query, key, value, attn_bias=None, lengths=None, softmax_mode="fast"):
        """Tensors [B, T, H, D], as a layer has them."""
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        made = self.fused_scaled_dot_product_attention(
            query, key, value, attn_bias, 0.0, True, self.scale, softmax_mode, True, lengths, "right"
        )
        return made.transpose(1, 2)
