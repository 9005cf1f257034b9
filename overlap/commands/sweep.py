"""`overlap sweep`: try splits, keep the fastest, write the files of a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from overlap.app.config import SweepRoot, from_config


def run(config: Any, run_dir: Path) -> None:
    """Sweep as `config` says, writing to `run_dir`."""
    root = from_config(SweepRoot, config)

    from contextlib import closing

    from rich.console import Console

    from overlap.commands.sweep_files import write_all
    from overlap.commands.tables import sweep_tables
    from overlap.devices.registry import open_device
    from overlap.presets import build_workload
    from overlap.search.progress import Progress
    from overlap.search.sweep import run_sweep

    workload = build_workload(root.workload)
    with closing(open_device(root.device)) as device:
        result = run_sweep(workload, device, root.space, root.search, run_dir, Progress(Console(stderr=True)))
    write_all(result, run_dir, shlex.join([*sys.argv[0].split(), *sys.argv[1:]]))
    console = Console()
    for table in sweep_tables(result):
        console.print(table, "")
    console.print(f"files in {run_dir}; open {run_dir / 'report.html'}", soft_wrap=True, highlight=False)
