"""`overlap sweep`: try splits, keep the fastest, write the files of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overlap.config import SweepRoot, from_config
from overlap.presets import build_workload


def run(config: Any, run_dir: Path) -> None:
    """Sweep as `config` says, writing to `run_dir`."""
    root = from_config(SweepRoot, config)
    workload = build_workload(root.workload)

    # Late, so that a mistake in the config is answered before torch is loaded.
    from contextlib import closing

    from rich.console import Console

    from overlap.commands.tables import sweep_tables
    from overlap.devices.registry import open_device
    from overlap.search.progress import Progress
    from overlap.search.sweep import run_sweep

    with closing(open_device(root.device)) as device:
        result = run_sweep(workload, device, root.space, root.search, run_dir, Progress(Console(stderr=True)))
    Console().print(*sweep_tables(result), sep="\n")
