"""`overlap profile`: measure how busy the engines are for one split in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overlap.app.config import ProfileRoot, from_config
from overlap.presets import build_workload


def run(config: Any, run_dir: Path) -> None:
    """Profile as `config` says, writing to `run_dir`."""
    root = from_config(ProfileRoot, config)
    workload = build_workload(root.workload)

    # Late, so that a mistake in the config is answered before torch is loaded.
    from contextlib import closing

    from rich.console import Console

    from overlap.commands.profile_files import write_profile
    from overlap.commands.tables import profile_tables
    from overlap.devices.registry import kind_of, open_device
    from overlap.search.lock import device_lock
    from overlap.search.profile import run_profile
    from overlap.search.progress import Progress

    say = Progress(Console(stderr=True)).say
    with (
        # First: a card that somebody times on cannot even be opened.
        device_lock(kind_of(root.device), root.device.lock, root.device.lock_timeout_s, say),
        closing(open_device(root.device)) as device,
    ):
        result = run_profile(workload, root.split, root.order, device, root.repeats, root.seed)
    write_profile(result, run_dir)
    console = Console()
    for table in profile_tables(result):
        console.print(table, "")
    console.print(f"files in {run_dir}", soft_wrap=True, highlight=False)
