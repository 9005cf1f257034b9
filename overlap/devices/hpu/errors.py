"""What goes wrong on a card, in words: which of the tool's errors a message of the bridge means."""

from __future__ import annotations

import re

from overlap.errors import DeviceBusyError, DeviceError, MemoryLimitError, OpFailedError, OverlapError

# Parts of messages in lower case, and what they mean. The first that is found counts.
MEMORY_SIGNS = ("out of memory", "failed to allocate", "allocation failed", "not enough memory", "workspace allocation")
BUSY_SIGNS = ("device is busy", "resource busy", "already acquired", "device acquire failed", "devicealreadyacquired")
NO_CARD_SIGNS = ("no device", "device not found", "no hpu", "failed to initialize")
DRIVER_SIGNS = ("driver version", "incompatible driver", "driver and", "ioctl")
BYTES = re.compile(r"(\d[\d,]*)\s*bytes|size\s*:+\s*(\d+)", re.IGNORECASE)


def in_words(error: BaseException, what: str, need_bytes: int = 0, limit_bytes: int = 0) -> OverlapError:
    """The error that `error`, raised while doing `what`, means for a user."""
    if isinstance(error, OverlapError):
        return error
    text = " ".join(str(error).split()) or type(error).__name__
    lower = text.lower()
    if any(sign in lower for sign in MEMORY_SIGNS):
        told = BYTES.search(text)
        asked = f", asked for {told.group(1) or told.group(2)} bytes" if told else ""
        return MemoryLimitError(
            f"{what}: out of device memory{asked}; the program needs about {need_bytes:,} of {limit_bytes:,} bytes",
            "fewer chunks in flight, a smaller bucket, or fewer window_layers",
        )
    if any(sign in lower for sign in BUSY_SIGNS):
        return DeviceBusyError(
            f"the card cannot be had, it is probably in use by another process: {_short(text)}",
            "hl-smi shows which; wait or pick another with HABANA_VISIBLE_MODULES",
        )
    if any(sign in lower for sign in DRIVER_SIGNS):
        return DeviceError(
            f"driver and software do not fit: {_short(text)}",
            "hl-smi shows the driver; it must be of the release of habana-torch-plugin",
        )
    if any(sign in lower for sign in NO_CARD_SIGNS):
        return DeviceError(f"no card can be used: {_short(text)}", "overlap doctor")
    return OpFailedError(f"{what}: {_short(text)}", "overlap doctor says what works here")


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
