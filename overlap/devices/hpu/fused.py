"""What the card does in its own way: fused attention, RMSNorm, RoPE.

Facts (§1.3, §1.4, §2.9 of the serving facts)
    - `FusedSDPA.apply` takes positions only; releases from 1.22 on take `window_size` and `sinks` after the others.
    - The kernel's causal path is for whole attention. In a merged scheme its statistics are not those of the plain
      algorithm, so slices get a mask on the diagonal and never the causal flag.
    - `linv` is the reciprocal of the row sum.
    - A bias of 2^31 bytes or more gives NaN without a word; with `PT_HPU_SDPA_BR_FACTOR` and `..._BC_FACTOR` set,
      lengths must be multiples of them.

A replacement is found by what a kernel computes, never by the name of an op; the error gate judges what comes out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from overlap.devices.hpu.bridge import Bridge
from overlap.devices.hpu.settings import HpuConfig
from overlap.errors import OpFailedError
from overlap.kernels.fused import fused_attention, fused_partial
from overlap.program import Kernel

# Calls of an RMSNorm after capture, casts left out, and of a rotation.
NORM = ("pow", "mean", "add_", "rsqrt", "mul", "mul")
ROTATE = ("mul", "mul", "sub_", "copy_", "mul", "mul", "add_", "copy_")
# Arguments of FusedSDPA that came with 1.22, with the values that change nothing.
NEWER = (("window_size", (-1, -1)), ("sinks", None))
RIGHT = "right"


def replaced_calls(bridge: Bridge, config: HpuConfig) -> dict[Any, Callable[..., Any]]:
    """Operators that are replaced wherever they are called."""
    found: dict[Any, Callable[..., Any]] = {fused_partial._opoverload: _no_slices}
    if (sdpa := bridge.fused_sdpa()) is not None:
        found[fused_attention._opoverload] = _whole(sdpa, config)
    if (raw := bridge.sdpa_recompute()) is not None:
        found[fused_partial._opoverload] = _slice(raw, config)
    return found


def _no_slices(*_: Any) -> Any:
    raise OpFailedError(
        "this release has no fused attention that can be merged (torch.ops.hpu.sdpa_recomp_fwd)",
        "splits without both fused_sdpa and kv_tile",
    )


def _whole(sdpa: Any, config: HpuConfig) -> Callable[..., torch.Tensor]:
    """Attention over all keys, as `overlap.kernels.fused.fused_attention`."""
    newer = [value for _, value in NEWER] if takes_windows(sdpa) else []

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, causal: bool
    ) -> torch.Tensor:
        batch, kv_heads, tokens, group, head_dim = query.shape
        heads = query.permute(0, 1, 3, 2, 4).reshape(batch, kv_heads * group, tokens, head_dim)
        # Positions: mask, dropout, causal, scale, softmax mode, recompute, valid lengths, padding side.
        made: torch.Tensor = sdpa.apply(
            heads, key, value, _mask(bias, batch), 0.0, causal, head_dim**-0.5, config.softmax_mode,
            config.recompute, None, RIGHT, *([False, False] if newer else []), *newer,
        )  # fmt: skip
        return made.view(batch, kv_heads, group, tokens, head_dim).transpose(2, 3).contiguous()

    return attend


def _slice(raw: Callable[..., Any], config: HpuConfig) -> Callable[..., Any]:
    """Attention over some keys with its statistics, as `overlap.kernels.fused.fused_partial`."""

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        batch, kv_heads, tokens, group, head_dim = query.shape
        rows = query.reshape(batch, kv_heads, tokens * group, head_dim)
        mask = None if bias is None else _mask(bias.repeat_interleave(group, dim=0), batch)
        made = raw(
            rows, key.contiguous(), value.contiguous(), mask, 0.0, head_dim**-0.5, False, True,
            config.softmax_mode, None, RIGHT,
        )  # fmt: skip
        output, maximum, reciprocal = made[:3]
        shape = (batch, kv_heads, tokens * group, 1)
        return output, maximum.float().reshape(shape), reciprocal.float().reciprocal().reshape(shape)

    return attend


def _mask(bias: torch.Tensor | None, batch: int) -> torch.Tensor | None:
    """[T, S] as [B, 1, T, S]: the kernel does not broadcast over the batch."""
    return None if bias is None else bias.expand(batch, 1, *bias.shape).contiguous()


def takes_windows(sdpa: Any) -> bool:
    """Whether `FusedSDPA` takes windows and sinks; not if it does not tell."""
    try:
        parameters = inspect.signature(sdpa.forward).parameters
    except (TypeError, ValueError, AttributeError):
        return False
    return all(name in parameters for name, _ in NEWER)


def replaced_kernel(bridge: Bridge, config: HpuConfig) -> Callable[[Kernel], Callable[[list[Any]], Any] | None]:
    """For a kernel, what computes it instead from the same inputs; None for most."""
    norm = bridge.rms_norm() if config.fused_norm else None
    turn = bridge.rotary() if config.fused_rope else None

    def find(kernel: Kernel) -> Callable[[list[Any]], Any] | None:
        names = tuple(name for call in kernel.calls if (name := _name(call.func)) != "_to_copy")
        if norm is not None and names == NORM and kernel.inputs == 2:
            eps = next(call.args[1] for call in kernel.calls if _name(call.func) == "add_")
            return lambda values: [norm.apply(values[0], values[1], eps)]
        if turn is not None and names == ROTATE and kernel.inputs == 6:
            return lambda values: rotate(turn, values)
        return None

    return find


def _name(func: Any) -> str:
    return str(func._opname)


def rotate(kernel: Any, values: list[Any]) -> list[torch.Tensor]:
    """Halves [..., T, h, D/2] with tables [T, 1, D/2] by the bridge's kernel for [B, h, T, D], blockwise."""
    first, cos, second, sin, first_target, second_target = values[:6]
    whole = torch.cat([first, second], dim=-1)
    tokens, heads, size = whole.shape[-3:]
    flat = whole.reshape(-1, tokens, heads, size).transpose(1, 2)
    tables = [torch.cat([one, one], dim=-1).reshape(1, 1, tokens, size) for one in (cos, sin)]
    positions = torch.arange(tokens, device=whole.device).unsqueeze(0)
    turned = kernel.apply(flat, *tables, positions).transpose(1, 2).reshape(whole.shape)
    half = size // 2
    first_target.copy_(turned[..., :half])
    second_target.copy_(turned[..., half:])
    return []
