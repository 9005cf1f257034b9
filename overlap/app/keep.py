"""Keep the record of a finished run when another run is refused its directory.

Hydra writes `.hydra/` before a command can look at the directory. If the command then finds that the directory belongs
to another run, that run's own record has to come back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from overlap.errors import RunDirError


class KeepRecord(Callback):
    """Remembers `.hydra/` before a run and restores it after a `RunDirError`."""

    def __init__(self) -> None:
        self._before: dict[Path, bytes] = {}

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Remember what is there."""
        folder = Path(str(config.hydra.run.dir)).absolute() / str(config.hydra.output_subdir)
        self._before = {file: file.read_bytes() for file in folder.glob("*.yaml")} if folder.is_dir() else {}

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Restore it if the directory was refused."""
        if isinstance(job_return._return_value, RunDirError):
            for file, content in self._before.items():
                file.write_bytes(content)
