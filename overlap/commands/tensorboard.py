"""`overlap tensorboard`: open TensorBoard on a run, or on a folder of runs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from overlap.errors import ConfigError, RunDirError

DEFAULT_PORT = "6006"


def run(run: str = "", port: str = DEFAULT_PORT) -> None:
    """Become TensorBoard on the `tb` folder of `run`; does not return.

    Raises:
        ConfigError: an argument is missing or no port.
        RunDirError: there is nothing that TensorBoard could show.
    """
    if not run:
        raise ConfigError("which run?", "overlap tensorboard run=outputs/sweep/<date>/<time>")
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"port is {port!r}", f"a number up to 65535, such as {DEFAULT_PORT}")
    folder = log_dir(Path(run))
    if find_spec("torch_tb_profiler") is None:
        print("the profiler tabs need torch-tb-profiler: pip install 'overlap[tensorboard]'", file=sys.stderr)
    print(f"TensorBoard on {folder}", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", port])


def log_dir(run: Path) -> Path:
    """What TensorBoard should look at: the `tb` folder of a run, or a folder with several runs.

    Raises:
        RunDirError: neither is there.
    """
    if not run.is_dir():
        raise RunDirError(f"there is no folder {run}", "run= takes the run directory of a sweep or a profile")
    if (run / "tb").is_dir():
        return run / "tb"
    if any(run.rglob("tb")) or any(run.rglob("*.pt.trace.json*")) or any(run.rglob("events.out.tfevents.*")):
        return run
    raise RunDirError(f"{run} has nothing for TensorBoard", "sweep and profile write a folder tb/ into their runs")
