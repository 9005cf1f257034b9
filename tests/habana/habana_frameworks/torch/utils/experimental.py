"""`habana_frameworks.torch.utils.experimental`."""

from __future__ import annotations

from enum import Enum


class synDeviceType(Enum):
    """Kinds of cards."""

    synDeviceGaudi = 1
    synDeviceGaudi2 = 4
    synDeviceGaudi3 = 5


def _get_device_type() -> synDeviceType:
    return synDeviceType.synDeviceGaudi2
