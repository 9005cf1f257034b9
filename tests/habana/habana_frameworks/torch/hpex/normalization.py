"""`habana_frameworks.torch.hpex.normalization`."""

from __future__ import annotations

from typing import Any

import torch


class FusedRMSNorm(torch.autograd.Function):
    """Positions only, as all autograd functions."""

    @staticmethod
    def forward(ctx: Any, data: Any, gamma: Any, eps: float, use_stages: bool = True, bwd_mode: int = 0) -> Any:
        """Data and gamma are of one dtype."""
        assert data.dtype == gamma.dtype
        return torch.nn.functional.rms_norm(data, (data.shape[-1],), gamma, eps)
