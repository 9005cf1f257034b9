"""What the card's fused kernels cannot do, checked before anything is compiled.

Sources: reports of silent NaN in serving stacks (bias size), the vendor's page on slicing inside the fused kernel
(block sizes), and vllm-gaudi's sliced attention (no causal flag in what is merged; see `fused`).
"""

from __future__ import annotations

from overlap.devices.hpu.settings import HpuConfig
from overlap.errors import OpFailedError
from overlap.kernels.fused import fused_partial
from overlap.program import Op, Program

# From this size on the fused kernel gives NaN without a word.
BIAS_LIMIT_BYTES = 2**31


def require_feasible(program: Program, config: HpuConfig) -> None:
    """Refuse what would come out wrong.

    Raises:
        OpFailedError: with the op and the rule.
    """
    for op in program.ops:
        if op.kernel.kind == "fused_attention":
            _check_bias(op)
            _check_blocks(op, config)


def _check_bias(op: Op) -> None:
    """The mask that the kernel gets is [B, 1, rows, S]; in slices the queries of a group are rows of their own."""
    batch, _, _, group = op.refs[0].size[:4]
    copies = batch * (group if any(call.func is fused_partial._opoverload for call in op.kernel.calls) else 1)
    for ref in op.refs[3:]:
        if len(ref.size) == 2 and ref.bytes * copies >= BIAS_LIMIT_BYTES:
            raise OpFailedError(
                f"{op.name}: a bias of {ref.bytes * copies:,} bytes; from {BIAS_LIMIT_BYTES:,} on the kernel gives NaN",
                "a smaller query_tile or kv_tile",
            )


def _check_blocks(op: Op, config: HpuConfig) -> None:
    """With block sizes set, lengths are multiples of them."""
    tokens, keys = op.refs[0].size[2], op.refs[1].size[2]
    size = config.sdpa_block or 1
    for length, what in ((tokens, "query"), (keys, "key")):
        if length % size:
            raise OpFailedError(
                f"{op.name}: {length} {what} tokens are no multiple of device.hpu.sdpa_block={size}",
                "another tile, or another block size",
            )
