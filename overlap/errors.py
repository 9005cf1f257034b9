"""Every error that a user can cause, in one place.

Each carries what went wrong and a hint that says what to do about it; the command line prints both on one line and
exits with 2. Anything else that is raised is a defect of the program and shows its traceback.
"""

from __future__ import annotations


class OverlapError(Exception):
    """Base of all errors that are the user's to fix.

    Args:
        message: what is wrong, naming the value.
        hint: what to do about it; empty where the message says it all.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[OverlapError], tuple[str, str]]:
        """Pickle by both fields, so that an error survives a launcher's worker process."""
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        """Message and hint on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(OverlapError):
    """An override or a config value that does not exist or does not fit: `sweep workloda=…`."""


class WorkloadError(OverlapError):
    """A shape that cannot exist: 14 heads over 4 KV heads, a decode bucket without context."""


class SplitError(OverlapError):
    """A split that does not fit its workload: 2048 query tokens in 3 chunks."""


class ProgramError(OverlapError):
    """Kernel code that cannot be captured: matrix and vector work in one op, work outside any op."""


class DeviceError(OverlapError):
    """A device that is not there or cannot do what was asked: `device=hpu` on a laptop."""


class DeviceBusyError(DeviceError):
    """A device that another process holds; it may be free again in a moment."""


class MemoryLimitError(DeviceError):
    """A program that needs more memory than the device has."""


class OpFailedError(DeviceError):
    """An op that raised while it ran, or one that never got its turn; the message names it."""


class RunDirError(OverlapError):
    """A run directory that belongs to another run, is damaged, or cannot be written."""


class TraceError(OverlapError):
    """A trace that cannot be read or holds nothing to analyse: an empty file, a trace without device lanes."""


class ReplayError(OverlapError):
    """A replay of a recorded sweep that asks for something nobody measured: more rounds, another order."""


class TunedError(OverlapError):
    """A tuned config that cannot be used: damaged, edited into nonsense, or of another model or device."""


class ServeError(OverlapError):
    """A model or stack that a tuned config cannot be applied to: it has no seam, is too old, or has one applied."""
