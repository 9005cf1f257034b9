"""`habana_frameworks.torch.hpex.normalization`."""

from __future__ import annotations

from typing import Any

import torch

_library = torch.library.Library("hpu", "FRAGMENT")
_library.define("rms_norm(Tensor data, Tensor gamma, float eps) -> Tensor")
_library.impl("rms_norm", lambda x, gamma, eps: torch.nn.functional.rms_norm(x, (x.shape[-1],), gamma, eps), "CPU")
_library.impl("rms_norm", lambda x, gamma, eps: torch.empty_like(x), "Meta")


class FusedRMSNorm(torch.autograd.Function):
    """Positions only, as all autograd functions."""

    @staticmethod
    def forward(ctx: Any, data: Any, gamma: Any, eps: float, use_stages: bool = True, bwd_mode: int = 0) -> Any:
        """Data and gamma are of one dtype."""
        assert data.dtype == gamma.dtype
        return torch.ops.hpu.rms_norm(data, gamma, eps)
