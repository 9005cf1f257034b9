"""Runs the `hpu` device on the double of Intel's bridge in `habana/`, which has no card and needs none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from overlap.devices.config import DeviceConfig
from overlap.devices.hpu import presence
from overlap.devices.hpu.device import HpuDevice
from overlap.devices.hpu.environment import child_environment
from overlap.devices.hpu.runnable import HpuRunnable
from overlap.devices.hpu.settings import HpuConfig
from overlap.kernels import inputs as window_inputs
from overlap.kernels.capture import capture
from overlap.kernels.reference import reference, relative_errors
from overlap.split import Split
from overlap.workload import Workload
from tests.fakes import small_workload

DOUBLE = Path(__file__).resolve().parent / "habana"
TIMEOUT_S = 120.0
SPLIT = Split(chunks=2, lag=1, masked_blocks="skip")
# fp32 throughout: whatever is further off is wrong, not rounded.
EXACT = 1e-5
# A model that is swept in seconds, as overrides of the command line.
TINY = (
    "workload.model.hidden=64",
    "workload.model.heads=4",
    "workload.model.kv_heads=2",
    "workload.model.head_dim=16",
    "workload.model.ffn=128",
    "workload.model.layers=4",
    "workload.bucket.query=32",
)


class Double:
    """Opens devices on the double; `card` says what is wrong with it (`habana_frameworks.torch.card.TRAITS`)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._held = ExitStack()
        patch.setenv("PYTHONPATH", str(DOUBLE))
        # So that this process finds that there is a bridge, too; it never imports it.
        patch.setattr(presence, "find_spec", lambda _: True)
        for name in ("PT_HPU_LAZY_MODE", "HABANA_PROFILE", "HABANA_VISIBLE_MODULES"):
            patch.delenv(name, raising=False)
        self.card()

    def card(self, *traits: str, **more: object) -> None:
        """What processes that start from now on find: traits, and more that some of them depend on."""
        self._patch.setenv("DOUBLE", ",".join(traits))
        for name, value in more.items():
            self._patch.setenv(f"DOUBLE_{name.upper()}", str(value))

    def open(self, *, timeout_s: float = TIMEOUT_S, memory_fraction: float = 0.9, **settings: Any) -> HpuDevice:
        """A device; closed after the test. Mode `lazy` unless told otherwise, for it is the quickest to test."""
        config = HpuConfig(**{"mode": "lazy", **settings})
        device = HpuDevice(DeviceConfig(kind="hpu", hpu=config, timeout_s=timeout_s, memory_fraction=memory_fraction))
        self._held.callback(device.close)
        return device

    def run(self, code: str, **settings: Any) -> str:
        """Run `code` as the process with the card would; what it prints. `bridge` and `config` are there."""
        config = HpuConfig(**{"mode": "lazy", **settings})
        head = (
            "import torch\nfrom overlap.devices.hpu.bridge import Bridge\n"
            "from overlap.devices.hpu.settings import HpuConfig\n"
            f"config = {config!r}\nbridge = Bridge()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", head + textwrap.dedent(code)],
            env=child_environment(config),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        """Close all devices."""
        self._held.close()


class Subject:
    """One workload with its inputs and its right results."""

    def __init__(self, workload: Workload | None = None) -> None:
        self.workload = workload or small_workload()
        self.inputs = window_inputs.make(self.workload, 0)
        with torch.inference_mode():
            inputs = window_inputs.assemble(self.workload, lambda name, _: self.inputs[name])
            self.truth = reference(inputs, self.workload)

    def prepare(self, device: HpuDevice, split: Split | None = None, order: list[int] | None = None) -> HpuRunnable:
        """A split on a device, in program order unless told otherwise."""
        program = capture(self.workload, split or Split())
        return device.prepare(program, range(len(program.ops)) if order is None else order, self.inputs)

    def worst_error(self, outputs: Mapping[str, torch.Tensor]) -> float:
        """Largest relative error of outputs."""
        return max(relative_errors(dict(outputs), self.truth, self.workload.bucket.context).values())
