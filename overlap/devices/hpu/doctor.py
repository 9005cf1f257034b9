"""What this machine is to the `hpu` device: what is there, what its environment means, and what of the bridge works.

Nothing here imports the bridge: every mode is looked at by a process of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from overlap.devices.hpu.bridge import RELEASES
from overlap.devices.hpu.child import Child
from overlap.devices.hpu.environment import LAZY_MODE, NO, PROFILE, SPELLED_BOOLEANS, child_environment, recorded
from overlap.devices.hpu.presence import PACKAGE, Card
from overlap.devices.hpu.probes import PROBES, Probe, usable
from overlap.devices.hpu.service import PACKAGE as PLUGIN
from overlap.devices.hpu.settings import HpuConfig
from overlap.errors import DeviceError, OverlapError

# A tiny call that takes longer than this hangs; compiling the first graph of a process takes tens of seconds.
PROBE_TIMEOUT_S = 180.0
TOOLS = {
    "hl-smi": "names processes that hold a card",
    "hl-prof-config": "needed for device.hpu.hardware_profile",
}
SELECTION = ("HABANA_VISIBLE_MODULES", "HABANA_VISIBLE_DEVICES", "HLS_MODULE_ID")


@dataclass(frozen=True)
class Examined:
    """One mode: `error` says why its process could not take the card, else there are `probes`."""

    mode: str
    about: Mapping[str, object]
    probes: tuple[Probe, ...] = ()
    error: str = ""

    @property
    def usable(self) -> bool:
        """Whether a sweep can run."""
        return not self.error and usable(self.mode, self.probes)


def examine(config: HpuConfig, timeout_s: float = PROBE_TIMEOUT_S) -> Examined:
    """Take the card in the mode of `config`, try every call, and let go of the card."""
    try:
        child = Child(config, child_environment(config), timeout_s)
    except OverlapError as error:
        return Examined(config.mode, {}, error=str(error))
    try:
        child.start()
        about = dict(child.about)
        return Examined(config.mode, about, tuple(_probes(child)))
    except OverlapError as error:
        return Examined(config.mode, {}, error=str(error))
    finally:
        child.close()


def _probes(child: Child) -> Iterator[Probe]:
    for name, (_, _, without) in PROBES.items():
        try:
            yield child.ask("probe", name)
        except DeviceError as error:
            # It hung or took its process with it; the next one gets a new process, if the card can be had again.
            yield Probe(name, False, error.message, without)


def facts(card: Card, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What can be told without opening a card, by name."""
    environment = os.environ if environment is None else environment
    try:
        release = metadata.version(PLUGIN)
    except metadata.PackageNotFoundError:
        release = f"{PLUGIN} is not installed"
    found = {
        "card": ", ".join(card.nodes) or "none under /dev/accel",
        "driver": card.driver or "not loaded",
        "bridge": release if card.package else f"no {PACKAGE}",
        "written for": f"releases {RELEASES}, not yet run on hardware",
    }
    for tool, use in TOOLS.items():
        found[tool] = shutil.which(tool) or f"not found ({use})"
    chosen = {name: environment[name] for name in SELECTION if name in environment}
    for name, value in (chosen | recorded(environment)).items():
        found[name] = value
    return found


def advice(card: Card, environment: Mapping[str, str] | None = None) -> list[str]:
    """What to change, from what can be told without opening a card."""
    environment = os.environ if environment is None else environment
    found = []
    if card.nodes and not card.package:
        found.append("run inside Intel's PyTorch container, which brings habana_frameworks (README, On a Gaudi host)")
    if card.package and not card.nodes:
        found.append("no card is visible: start the container with --runtime=habana and HABANA_VISIBLE_DEVICES=all")
    if card.nodes and not card.driver:
        found.append("the driver's version cannot be read from here; hl-smi shows it")
    for name, value in sorted(environment.items()):
        if name.startswith("PT_") and value.lower() in SPELLED_BOOLEANS:
            meant = SPELLED_BOOLEANS[value.lower()]
            found.append(f"set {name}={meant}: releases differ in what they take {value!r} for")
    if environment.get(PROFILE) == NO:
        found.append(f"unset {PROFILE}: 0 switches the profiler off, and engines cannot be seen without it")
    if environment.get("HABANA_SHIM_DISABLE", NO) != NO:
        found.append("unset HABANA_SHIM_DISABLE: without the shim there is no profiler")
    if LAZY_MODE in environment:
        found.append(f"{LAZY_MODE} of this shell is not used: device.hpu.mode decides it")
    return found
