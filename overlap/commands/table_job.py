"""One bucket of a table: a sweep in a folder of its own, with the files of any sweep.

Contract: a job is told all it needs by values that can be sent to another process, and answers through its folder: a
job whose outcome has no failure has left a `tuned.yaml` there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from overlap.buckets import FULL
from overlap.commands.share import share
from overlap.commands.sweep_files import build_tuned, trace_info, write_all, write_profile, write_trials
from overlap.devices.base import Device
from overlap.devices.config import DeviceConfig
from overlap.errors import DeviceError, OverlapError, ProgramError, SplitError, WorkloadError
from overlap.kernels.capture import capture
from overlap.search.config import SearchConfig, SpaceConfig
from overlap.search.progress import Progress, Step
from overlap.search.sweep import SweepResult, run_sweep
from overlap.serve.tuned import Entry
from overlap.serve.tuned_file import load, save
from overlap.split import Split
from overlap.traces.chrome import chunk_flows, write_chrome
from overlap.workload import Bucket, Workload

FOLDER, TUNED, PAGE = "buckets", "tuned.yaml", "report.html"
# What keeps a single bucket from being swept. A folder that cannot be written keeps all of them.
OF_THE_BUCKET = (DeviceError, ProgramError, SplitError, WorkloadError)


@dataclass(frozen=True)
class Shared:
    """What all jobs of a table have in common; the bucket of `workload` is none of theirs."""

    workload: Workload
    device: DeviceConfig
    space: SpaceConfig
    search: SearchConfig
    run_dir: Path
    details: str
    command: str
    records: str = ""

    def folder(self, bucket: Bucket) -> Path:
        """Where the files of a bucket are."""
        return self.run_dir / FOLDER / str(bucket).replace(" ", "_")

    def workload_of(self, bucket: Bucket) -> Workload:
        """What is swept for a bucket."""
        return replace(self.workload, bucket=bucket)


@dataclass(frozen=True)
class Outcome:
    """What became of a bucket: the error that kept it from being swept, or none."""

    failure: OverlapError | None = None


class Quiet(Progress):
    """No stages, no lines: buckets that are swept at the same time would mix theirs."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """Steps that nobody sees."""
        yield lambda note: None

    def say(self, text: str) -> None:
        """Nothing."""


def sweep_bucket(shared: Shared, device: Device, bucket: Bucket, seeds: Sequence[Split], progress: Progress) -> Outcome:
    """Sweep one bucket and write its files; what is there already is not measured again.

    Raises:
        OverlapError: a mistake that would keep every other bucket from being swept as well.
    """
    folder = shared.folder(bucket)
    try:
        result = run_sweep(shared.workload_of(bucket), device, shared.space, shared.search, folder, progress, seeds)
    except OF_THE_BUCKET as error:
        return Outcome(error)
    if shared.details == FULL:
        write_all(result, folder, shared.command)
    else:
        write_light(result, folder)
    share(result, shared.records, folder)
    return Outcome()


def has_files(shared: Shared, bucket: Bucket) -> bool:
    """Whether the files that a finished job leaves are there; with more details than before, some are not."""
    wanted = (TUNED, PAGE) if shared.details == FULL else (TUNED,)
    return all((shared.folder(bucket) / name).is_file() for name in wanted)


def write_light(result: SweepResult, folder: Path) -> None:
    """The files of a sweep that programs read, and its traces; no page and nothing for TensorBoard."""
    write_trials(result, folder / "trials.parquet")
    write_profile(result, folder / "profile.json")
    for name, one in result.variants.items():
        flows = chunk_flows(capture(result.workload, one.candidate.split))
        write_chrome(one.events, folder / "traces" / f"{name}.pt.trace.json.gz", trace_info(result, one), flows)
    save(build_tuned(result), folder / TUNED)


def entry_of(folder: Path) -> Entry:
    """The entry that a finished job left in its folder, its trace named as seen from the table.

    Raises:
        RunDirError: the file is not there, or damaged.
    """
    (entry,) = load(folder / TUNED).entries
    return entry.under(f"{FOLDER}/{folder.name}")
