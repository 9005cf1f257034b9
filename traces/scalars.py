"""Scalars and hparams of a sweep for TensorBoard: one run per candidate, its samples as a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlap.errors import RunDirError


@dataclass(frozen=True)
class ScalarRow:
    """One candidate: `hparams` are what was chosen, `metrics` what came of it, `samples_us` its times in order."""

    name: str
    hparams: Mapping[str, bool | int | float | str]
    metrics: Mapping[str, float]
    samples_us: Sequence[float]


def write_scalars(rows: Sequence[ScalarRow], folder: Path) -> None:
    """Write one TensorBoard run per row under `folder`; rows that are there from an earlier call are replaced.

    Raises:
        RunDirError: where the folder cannot be written.
    """
    # TensorBoard's writer takes a second to import and only a finished sweep needs it.
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    try:
        for row in rows:
            run = folder / row.name
            for old in run.glob("events.out.tfevents.*"):
                old.unlink()
            with SummaryWriter(str(run)) as writer:
                for summary in hparams(dict(row.hparams), dict.fromkeys(row.metrics)):
                    writer.file_writer.add_summary(summary)
                for name, value in row.metrics.items():
                    writer.add_scalar(name, value)
                for step, sample in enumerate(row.samples_us):
                    writer.add_scalar("sample_us", sample, step)
    except OSError as error:
        raise RunDirError(f"cannot write {folder}: {error.strerror}", "choose another hydra.run.dir") from error
