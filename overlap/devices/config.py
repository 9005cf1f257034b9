"""Config of the devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class DeviceConfig:
    """Which device, and how the host's cores are shared."""

    kind: str = "auto"
    mme_threads: Optional[int] = None
    tpc_threads: Optional[int] = None
    pin: bool = True
    timeout_s: float = 600.0
    memory_fraction: float = 0.9
