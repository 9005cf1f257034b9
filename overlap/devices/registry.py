"""Which devices this version has and which of them are present on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overlap.devices.base import Device
from overlap.devices.config import DeviceConfig
from overlap.devices.hpu.presence import find_card
from overlap.errors import DeviceError


@dataclass(frozen=True)
class Kind:
    """What is known of a device before it is opened."""

    kind: str
    evidence: str


@dataclass(frozen=True)
class Available:
    """A device kind and whether it can be opened here."""

    kind: str
    present: bool
    detail: str


def _open_host(config: DeviceConfig) -> Device:
    from overlap.devices.host.device import HostDevice

    return HostDevice(config)


def _open_gaudi_model(config: DeviceConfig) -> Device:
    from overlap.devices.gaudi.model import GaudiDevice

    return GaudiDevice(config)


def _open_hpu(config: DeviceConfig) -> Device:
    card = find_card()
    if not card.package:
        hint = "run inside Intel's PyTorch container; overlap doctor says what is missing"
        raise DeviceError(f"device hpu cannot be used: {card.in_words()}", hint)
    from overlap.devices.hpu.device import HpuDevice

    return HpuDevice(config)


OPENERS: dict[str, Callable[[DeviceConfig], Device]] = {
    "hpu": _open_hpu,
    "host": _open_host,
    "gaudi2": _open_gaudi_model,
    "gaudi3": _open_gaudi_model,
}
MODELS = frozenset(kind for kind, opener in OPENERS.items() if opener is _open_gaudi_model)


def kind_of(config: DeviceConfig) -> Kind:
    """What `config` would open."""
    kind = best_kind() if config.kind == "auto" else config.kind
    return Kind(kind, "simulated" if kind in MODELS else "measured")


def open_device(config: DeviceConfig) -> Device:
    """Open the device that `config.kind` names; `auto` takes a Gaudi card where there is one, else the host.

    Models are taken only by name.

    Raises:
        DeviceError: there is no such kind, or it cannot be used.
    """
    kind = kind_of(config).kind
    opener = OPENERS.get(kind)
    if opener is None:
        raise DeviceError(f"device {kind!r} is not known", f"one of auto, {', '.join(OPENERS)}")
    return opener(config)


def best_kind() -> str:
    """What `auto` stands for on this machine."""
    return "hpu" if find_card().present else "host"


def available() -> list[Available]:
    """Every kind this version knows. Nothing is opened: a card may still turn out to be in use."""
    from overlap.devices.gaudi.constants import CHIPS
    from overlap.devices.host.device import cpu_name
    from overlap.devices.host.workers import share_cores

    shares = share_cores(None, None, pin=True)
    threads = " + ".join(f"{share.threads} {engine}" for share, engine in zip(shares, ("MME", "TPC"), strict=True))
    card = find_card()
    return [
        Available("hpu", card.present, f"{card.in_words()}; evidence: measured"),
        Available("host", True, f"{cpu_name()}, threads: {threads}; evidence: measured"),
        *(Available(chip, True, "model of a card, on any machine; evidence: simulated") for chip in CHIPS),
    ]
