"""`overlap sweep`: try splits, keep the fastest, write the files of a run; for one bucket or for a table of them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overlap.app.config import SweepRoot, from_config
from overlap.buckets import SINGLE, buckets_of, details_of
from overlap.presets import build_workload

if TYPE_CHECKING:
    from overlap.devices.base import Device
    from overlap.search.progress import Progress
    from overlap.workload import Bucket, Workload


def run(config: Any, run_dir: Path) -> None:
    """Sweep as `config` says, writing to `run_dir`."""
    root = from_config(SweepRoot, config)
    workload = build_workload(root.workload)
    buckets = buckets_of(root.buckets, workload.bucket)

    # Late, so that a mistake in the config is answered before torch is loaded.
    from contextlib import closing

    from rich.console import Console

    from overlap.devices.registry import kind_of, open_device
    from overlap.search.lock import device_lock
    from overlap.search.progress import Progress

    progress = Progress(Console(stderr=True))
    with (
        # First: a card that somebody times on cannot even be opened.
        device_lock(kind_of(root.device), root.device.lock, root.device.lock_timeout_s, progress.say),
        closing(open_device(root.device)) as device,
    ):
        if root.buckets.strategy == SINGLE:
            _one(root, workload, device, run_dir, progress)
        else:
            _table(root, workload, buckets, device, run_dir, progress)


def _one(root: SweepRoot, workload: Workload, device: Device, run_dir: Path, progress: Progress) -> None:
    from rich.console import Console

    from overlap.commands.share import share
    from overlap.commands.sweep_files import write_all
    from overlap.commands.tables import sweep_tables
    from overlap.search.sweep import run_sweep

    result = run_sweep(workload, device, root.space, root.search, run_dir, progress)
    write_all(result, run_dir, _command())
    share(result, root.records, run_dir)
    console = Console()
    for table in sweep_tables(result):
        console.print(table, "")
    _say_where(run_dir)


def _table(
    root: SweepRoot, workload: Workload, buckets: list[Bucket], device: Device, run_dir: Path, progress: Progress
) -> None:
    from rich.console import Console

    from overlap.commands.table_files import write_table
    from overlap.commands.table_job import Shared
    from overlap.commands.table_print import summary, table_tables
    from overlap.commands.table_run import run_table

    details, records = details_of(root.buckets, len(buckets)), root.records
    shared = Shared(workload, root.device, root.space, root.search, run_dir, details, _command(), records)
    table = run_table(shared, buckets, root.buckets.jobs, device, progress)
    write_table(table)
    console = Console()
    for one in table_tables(table):
        console.print(one, "")
    console.print(summary(table), soft_wrap=True, highlight=False)
    _say_where(run_dir)


def _command() -> str:
    """The command line of this run."""
    return shlex.join([*sys.argv[0].split(), *sys.argv[1:]])


def _say_where(run_dir: Path) -> None:
    from rich.console import Console

    Console().print(f"files in {run_dir}; open {run_dir / 'report.html'}", soft_wrap=True, highlight=False)
