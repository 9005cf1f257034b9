"""`tuned.yaml`: per bucket the kept split, how it was measured, and against what. Schema `overlap.tuned/1`.

Terms
    entry: one bucket. A bucket where the baseline won is an entry too, with `pass_through: true`, so that a reader can
        tell "measured and not worth it" from "never measured".
    busy: fractions of the window of the profiled run; `both` is contained in `mme` and in `tpc`.
Times are µs. Every entry names its evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from overlap.errors import RunDirError
from overlap.files import write_atomic
from overlap.stats import Interval
from overlap.workload import PHASES

SCHEMA = "overlap.tuned/1"


class Spread(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A median with its confidence interval."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval, scale: float = 1.0) -> Spread:
        """From an interval in another unit; rounded to 6 significant digits."""
        low, middle, high = (float(f"{value * scale:.6g}") for value in (interval.low, interval.median, interval.high))
        return cls(median=middle, low=low, high=high)


class Busy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fractions of the window."""

    mme: float
    tpc: float
    both: float
    idle: float


class Attribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Factors of the gain over the baseline, each timed by itself.

    `overlap` is none where a device cannot run one queue at a time: then it is part of the others.
    """

    work: float
    tiling: float
    order: float
    overlap: float | None = None


class Errors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Worst relative L2 error over the outputs against the fp32 reference."""

    rel_l2: float
    baseline_rel_l2: float


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bucket."""

    bucket: dict[str, Any]
    pass_through: bool
    split: dict[str, Any]
    order: str
    evidence: str
    latency_us: Spread
    baseline_latency_us: Spread
    speedup: Spread
    speedup_vs_stack: Spread | None
    attribution: Attribution | None
    busy: Busy
    baseline_busy: Busy
    bound_us: float
    gap: float
    error: Errors
    peak_bytes: int
    baseline_peak_bytes: int
    samples: int
    trace: str

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the entry stands in a file: prefill before decode, then by batch, query and context."""
        bucket = self.bucket
        phase = str(bucket.get("phase", ""))
        at = PHASES.index(phase) if phase in PHASES else len(PHASES)
        return (at, phase, *(int(bucket.get(name, 0)) for name in ("batch", "query", "context")))

    def under(self, folder: str) -> Entry:
        """The entry as seen from a folder that holds `folder`."""
        return msgspec.structs.replace(self, trace=f"{folder}/{self.trace}")


class TunedDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the entries were measured on."""

    kind: str
    name: str
    evidence: str
    software: dict[str, str]


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file; every bucket has one entry."""

    schema: str = SCHEMA
    model: dict[str, Any]
    tensor_parallel: int
    window_layers: int
    device: TunedDevice
    entries: list[Entry]

    def with_entries(self, entries: Iterable[Entry]) -> Tuned:
        """The same file with other entries, sorted by bucket."""
        return msgspec.structs.replace(self, entries=sorted(entries, key=lambda entry: entry.place))


def save(tuned: Tuned, path: Path) -> None:
    """Write atomically.

    Raises:
        RunDirError: the file cannot be written; one that was there before stays as it was.
    """
    write_atomic(path, msgspec.yaml.encode(tuned))


def load(path: Path) -> Tuned:
    """Read and check a file.

    Raises:
        RunDirError: it is not there, not a tuned config of this schema, or has two entries for a bucket; names the
            field or the bucket that is wrong.
    """
    try:
        tuned = msgspec.yaml.decode(path.read_bytes(), type=Tuned)
    except OSError as error:
        raise RunDirError(f"cannot read {path}: {error.strerror}", "give the path of a tuned.yaml") from error
    except msgspec.DecodeError as error:
        raise RunDirError(f"{path} is not a tuned config: {error}", "write it with `overlap sweep`") from error
    if tuned.schema != SCHEMA:
        raise RunDirError(f"{path} has schema {tuned.schema!r}", f"this version reads {SCHEMA}")
    seen: set[str] = set()
    for entry in tuned.entries:
        bucket = json.dumps(entry.bucket, sort_keys=True, default=str)
        if bucket in seen:
            raise RunDirError(f"{path} has two entries for the bucket {bucket}", "remove the one that is wrong")
        seen.add(bucket)
    return tuned
