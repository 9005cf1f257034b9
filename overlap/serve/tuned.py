"""`tuned.yaml`: per bucket the kept split, how it was measured, and against what. Schema `overlap.tuned/1`.

Terms
    entry: one bucket. A bucket where the baseline won is an entry too, with `pass_through: true`, so that a reader can
        tell "measured and not worth it" from "never measured".
    alternative: a finalist that was not kept, with its time, for whoever cannot deploy what was.
    verdict: what `overlap verify` found on a serving stack.
    busy: fractions of the window of the profiled run; `both` is contained in `mme` and in `tpc`.
Times are µs. Every entry names its evidence.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from overlap.errors import TunedError
from overlap.split import Split
from overlap.stats import Interval
from overlap.workload import PHASES, Bucket, ModelShape, Workload

SCHEMA = "overlap.tuned/1"


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the file: fields that are not there, or too many, are errors."""


class Spread(Strict, frozen=True, kw_only=True):
    """A median with its confidence interval; `high` is infinite where there were too few samples for one."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval, scale: float = 1.0) -> Spread:
        """From an interval in another unit; rounded to 6 significant digits."""
        low, middle, high = (float(f"{value * scale:.6g}") for value in (interval.low, interval.median, interval.high))
        return cls(median=middle, low=low, high=high)


class Busy(Strict, frozen=True, kw_only=True):
    """Fractions of the window."""

    mme: float
    tpc: float
    both: float
    idle: float


class Attribution(Strict, frozen=True, kw_only=True):
    """Factors of the gain over the baseline, each timed by itself.

    `overlap` is none where a device cannot run one queue at a time: then it is part of the others.
    """

    work: float
    tiling: float
    order: float
    overlap: float | None = None


class Errors(Strict, frozen=True, kw_only=True):
    """Worst relative L2 error over the outputs against the fp32 reference."""

    rel_l2: float
    baseline_rel_l2: float


class Alternative(Strict, frozen=True, kw_only=True):
    """A finalist that was not kept; `recipe` names the recipe of the field that it is, if it is one."""

    split: Split
    order: str
    latency_us: Spread
    recipe: str = ""


class Verified(Strict, frozen=True, kw_only=True):
    """What `overlap verify` found: tuned against untouched, run by run in one process.

    Speed-ups are ratios of paired times. `block` is the window of layers on the device's engines, `model` the prefill
    of the whole model in the stack, `model_over_eager` the same over the stack's plain attention, which is what a block
    is compared with. `tokens` of greedy output were compared; `first_difference` is the first step at which a sequence
    differs, and `tie` says that the untouched model itself was undecided there, within the error of its dtype.
    `logits_rel_l2` is none where logits were no numbers.
    """

    verdict: str
    reason: str
    date: str
    model: str
    stack: str
    device: str
    evidence: str
    block: Spread | None
    model_speedup: Spread
    model_over_eager: Spread | None
    model_latency_us: Spread
    untouched_latency_us: Spread
    tokens: int
    tokens_equal: bool
    first_difference: int | None
    tie: bool
    logits_rel_l2: float | None
    peak_bytes: int | None
    untouched_peak_bytes: int | None
    rounds: int


class Entry(Strict, frozen=True, kw_only=True):
    """One bucket."""

    bucket: Bucket
    pass_through: bool
    split: Split
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
    alternatives: tuple[Alternative, ...] = ()
    verified: Verified | None = None

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where the entry stands in a file: prefill before decode, then by batch, query and context."""
        bucket = self.bucket
        return (PHASES.index(bucket.phase), bucket.batch, bucket.query, bucket.context)

    def under(self, folder: str) -> Entry:
        """The entry as seen from a folder that holds `folder`."""
        return msgspec.structs.replace(self, trace=f"{folder}/{self.trace}")


class TunedDevice(Strict, frozen=True, kw_only=True):
    """What the entries were measured on."""

    kind: str
    name: str
    evidence: str
    software: dict[str, str]


class Tuned(Strict, frozen=True, kw_only=True):
    """The whole file; every bucket has one entry."""

    schema: str
    model: ModelShape
    tensor_parallel: int
    window_layers: int
    device: TunedDevice
    entries: list[Entry]

    def with_entries(self, entries: Iterable[Entry]) -> Tuned:
        """The same file with other entries, sorted by bucket."""
        return msgspec.structs.replace(self, entries=sorted(entries, key=lambda entry: entry.place))

    def workload(self, entry: Entry) -> Workload:
        """What `entry` was tuned for."""
        return Workload(self.model, entry.bucket, self.tensor_parallel, self.window_layers)

    def same_group(self, other: Tuned) -> bool:
        """Whether entries of both may stand in one file."""
        return self.with_entries(()) == other.with_entries(())


def merge(older: Tuned, newer: Tuned) -> Tuned:
    """Entries of both; where both have a bucket, that of `newer`.

    Raises:
        TunedError: they are of different models, windows or devices, whose numbers must not be put side by side.
    """
    if not older.same_group(newer):
        what = next(name for name in Tuned.__struct_fields__ if getattr(older, name) != getattr(newer, name))
        raise TunedError(
            f"two tuned configs differ in {what}", "`overlap collect` writes one file per model and device"
        )
    by_bucket = {entry.bucket: entry for one in (older, newer) for entry in one.entries}
    return newer.with_entries(by_bucket.values())
