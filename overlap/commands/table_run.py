"""A table: every bucket of a list swept, each in a folder of its own, with a journal of which ones are done.

Terms
    row: a bucket with its entry, or with the error that kept it from being swept.

The journal at the top holds the identity of the whole table, the plan included, so that a table is gone on with only as
what it was begun as; buckets have journals of their own, which hold the samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass

from overlap.buckets import bucket_order
from overlap.commands.table_job import Outcome, Shared, entry_of, has_files
from overlap.commands.table_pool import cores, workers
from overlap.devices.base import Device, DeviceInfo
from overlap.errors import OverlapError
from overlap.search.journal import Journal
from overlap.search.progress import Progress
from overlap.search.sweep import identity
from overlap.search.table import Step, drive, plan, seeds_of
from overlap.serve.tuned import Entry
from overlap.split import Split
from overlap.workload import Bucket

RECORD = "bucket"


@dataclass(frozen=True)
class Row:
    """One bucket of a table; exactly one of `entry` and `failure` is there."""

    bucket: Bucket
    entry: Entry | None
    failure: OverlapError | None = None


@dataclass(frozen=True)
class Table:
    """A table with its rows sorted by bucket; at least one of them has an entry."""

    shared: Shared
    device: DeviceInfo
    rows: Sequence[Row]

    @property
    def entries(self) -> list[Entry]:
        """Those that there are."""
        return [row.entry for row in self.rows if row.entry is not None]

    @property
    def failed(self) -> list[Row]:
        """Rows without an entry."""
        return [row for row in self.rows if row.entry is None]


def run_table(shared: Shared, buckets: Sequence[Bucket], jobs: int, device: Device, progress: Progress) -> Table:
    """Sweep every one of `buckets` that is not done yet.

    On a device that computes nothing, `jobs` of them at once, 0 for one per core.

    Raises:
        RunDirError: the run directory belongs to something else, is in use, or cannot be written.
        OverlapError: no bucket could be swept; what the first one failed with.
    """
    strips = plan(buckets)
    with Journal(shared.run_dir, _identity(shared, device, strips)) as journal:
        known = {bucket: Outcome() for bucket in _done(journal, shared, buckets)}
        jobs = _jobs(jobs, device.info, len(strips))
        at_once = f", {jobs} at once" if jobs > 1 else ""
        progress.say(f"{len(buckets)} buckets{at_once}" + (f"; {len(known)} of them are done" if known else ""))
        ended = _Ended(journal, shared, progress, len(buckets), len(known))
        with workers(shared, device, jobs, progress) as begin:

            def submit(step: Step, found: Mapping[Bucket, Outcome]) -> Future[Outcome]:
                return begin(step.bucket, _seeds(shared, step, found))

            outcomes = drive(strips, jobs, known, submit, ended)
    return Table(shared, device.info, _rows(shared, outcomes))


def _jobs(wanted: int, info: DeviceInfo, strips: int) -> int:
    """A device that is timed is timed by one bucket at a time."""
    return 1 if info.computes else max(1, min(wanted or cores(), strips))


def _identity(shared: Shared, device: Device, strips: Sequence[Sequence[Step]]) -> dict[str, object]:
    """That of a sweep, with the plan in place of its one bucket."""
    workload = asdict(shared.workload)
    del workload["bucket"]
    lenders = {str(step.bucket): [str(one) for one in step.lenders] for strip in strips for step in strip}
    found = identity(shared.workload, device, shared.space, shared.search)
    return {**found, "workload": workload, "buckets": lenders}


def _done(journal: Journal, shared: Shared, buckets: Sequence[Bucket]) -> list[Bucket]:
    """Buckets that the journal has as done and whose files are still there."""
    done = {record["bucket"] for record in journal.of_kind(RECORD) if not record["failure"]}
    return [one for one in buckets if str(one) in done and has_files(shared, one)]


def _seeds(shared: Shared, step: Step, found: Mapping[Bucket, Outcome]) -> list[Split]:
    """Read from the files of the lenders, so that they are the same in any session."""
    able = [one for one in step.lenders if found[one].failure is None]
    kept = {one: entry_of(shared.folder(one)).split for one in able}
    return seeds_of(step, kept, shared.workload_of(step.bucket))


def _rows(shared: Shared, outcomes: Mapping[Bucket, Outcome]) -> list[Row]:
    rows = [
        Row(bucket, None if outcome.failure else entry_of(shared.folder(bucket)), outcome.failure)
        for bucket, outcome in sorted(outcomes.items(), key=lambda pair: bucket_order(pair[0]))
    ]
    first = rows[0].failure
    if first is not None and all(row.failure for row in rows):
        raise type(first)(
            f"none of the {len(rows)} buckets could be swept; {rows[0].bucket}: {first.message}", first.hint
        )
    return rows


class _Ended:
    """Told of every bucket that has come to an end."""

    def __init__(self, journal: Journal, shared: Shared, progress: Progress, total: int, known: int) -> None:
        self._journal, self._shared, self._progress = journal, shared, progress
        self._total, self._known, self._ended = total, known, 0
        self._begin = time.monotonic()

    def __call__(self, bucket: Bucket, outcome: Outcome) -> None:
        """Note it, and say a line."""
        failure = str(outcome.failure) if outcome.failure else ""
        self._journal.append(RECORD, bucket=str(bucket), failure=failure, session=self._journal.session)
        self._ended += 1
        count = self._known + self._ended
        left_s = (time.monotonic() - self._begin) / self._ended * (self._total - count)
        left = f"; {left_s:.0f} s left" if count < self._total else ""
        self._progress.say(f"{count}/{self._total} {bucket}: {self._words(bucket, failure)}{left}")

    def _words(self, bucket: Bucket, failure: str) -> str:
        if failure:
            return f"not swept: {failure}"
        entry = entry_of(self._shared.folder(bucket))
        if entry.pass_through:
            return "the baseline stays"
        return f"{entry.speedup.median:.3f}x with {entry.split} | {entry.order}"
