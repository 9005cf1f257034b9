"""Config of the devices."""

from __future__ import annotations

from dataclasses import dataclass, field

from overlap.devices.gaudi.settings import GaudiConfig
from overlap.devices.hpu.settings import HpuConfig
from overlap.errors import ConfigError

WAIT, REFUSE = LOCKS = ("wait", "refuse")


@dataclass(frozen=True)
class DeviceConfig:
    """Which device, how the host's cores are shared, what is switched in the Gaudi model, and how a Gaudi card runs.

    `lock` says what a job does when another one is timing on the same device: `wait`, at most `lock_timeout_s`, or
    `refuse`.
    """

    kind: str = "auto"
    mme_threads: int | None = None
    tpc_threads: int | None = None
    pin: bool = True
    timeout_s: float = 600.0
    memory_fraction: float = 0.9
    lock: str = "wait"
    # A sweep takes minutes to hours; a day means that something hangs.
    lock_timeout_s: float = 86_400.0
    gaudi: GaudiConfig = field(default_factory=GaudiConfig)
    hpu: HpuConfig = field(default_factory=HpuConfig)

    def __post_init__(self) -> None:
        """Refuse values that no device can work with."""
        for name in ("mme_threads", "tpc_threads"):
            threads = getattr(self, name)
            if threads is not None and threads < 1:
                raise ConfigError(f"device.{name} is {threads}", "it must be at least 1, or null for an even share")
        if not self.timeout_s > 0:
            raise ConfigError(f"device.timeout_s is {self.timeout_s}", "it must be positive")
        if self.lock not in LOCKS:
            raise ConfigError(f"device.lock is {self.lock!r}", f"one of {', '.join(LOCKS)}")
        if not self.lock_timeout_s >= 0:
            raise ConfigError(f"device.lock_timeout_s is {self.lock_timeout_s}", "it must be 0 or more")
        if not 0 < self.memory_fraction <= 1:
            raise ConfigError(f"device.memory_fraction is {self.memory_fraction}", "it must be above 0 and at most 1")
