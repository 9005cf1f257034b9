"""Whether a Gaudi card seems to be here, told from files alone: nothing is imported and no card is opened."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "habana_frameworks"
# Nodes of the driver: in the kernel's accelerator class, and as drivers before it named them.
NODES = ("accel/accel[0-9]*", "hl[0-9]*")
DRIVER_VERSION = Path("/sys/module/habanalabs/version")
DEVICES = Path("/dev")
# Other accelerators have files of the same names; a link here says whose they are.
DRIVERS, OURS = Path("/sys/class/accel"), "habanalabs"


@dataclass(frozen=True)
class Card:
    """What there is to see: the bridge's package, the cards' device files, the driver's version."""

    package: bool
    nodes: tuple[str, ...]
    driver: str

    @property
    def present(self) -> bool:
        """Whether opening it can succeed."""
        return self.package and bool(self.nodes)

    def in_words(self) -> str:
        """`2 cards`, or what is missing."""
        missing = [] if self.package else [f"no {PACKAGE}"]
        if not self.nodes:
            missing.append("no card under /dev/accel")
        return " and ".join(missing) or f"{len(self.nodes)} card{'' if len(self.nodes) == 1 else 's'}"


def find_card(devices: Path | None = None, driver_version: Path = DRIVER_VERSION, drivers: Path = DRIVERS) -> Card:
    """Look for the bridge and for cards, in `devices` or where the system has them."""
    devices = DEVICES if devices is None else devices
    nodes = sorted(
        path.name
        for pattern in NODES
        for path in devices.glob(pattern)
        if path.name[-1].isdigit() and _is_gaudi(drivers / path.name)
    )
    try:
        driver = driver_version.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        driver = ""
    return Card(find_spec(PACKAGE) is not None, tuple(nodes), driver)


def _is_gaudi(entry: Path) -> bool:
    """Whether a device's driver is Gaudi's, or nothing tells."""
    link = entry / "device" / "driver"
    return not link.exists() or link.resolve().name == OURS
