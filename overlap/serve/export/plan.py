"""What is exported, as data: per bucket what was kept and what each level runs, and the settings of every level.

Terms
    level: 0 is settings alone; 1 adds our plug-in with a tuned config of its own.
    loss: time over the kept time, less one; negative where something else is faster than what was kept.
    how: where the time of an option is from: `known` was timed, `assumed` is the time of the same split with a graph
        per layer, `unknown` is no time.

Contract: `export.json` is a plan, and reading it gives it back equal. Times are µs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec

from overlap.errors import TunedError
from overlap.files import write_atomic
from overlap.serve.tuned import Strict, TunedDevice
from overlap.split import Split
from overlap.workload import Bucket, ModelShape

SCHEMA = "overlap.export/1"
NAME = "export.json"


class Source(Strict, frozen=True, kw_only=True):
    """The tuned config that was exported, and when and by what."""

    file: str
    sha256: str
    date: str
    overlap: str


class Option(Strict, frozen=True, kw_only=True):
    """What a level runs in a bucket; `tuned` says that the plug-in does it."""

    what: str
    split: Split | None
    time_us: float | None
    loss: float | None
    how: Literal["known", "assumed", "unknown"]
    tuned: bool = False
    note: str = ""


class Planned(Strict, frozen=True, kw_only=True):
    """One bucket; `route` is the lowest level that runs what was kept, none where no level does."""

    bucket: Bucket
    evidence: str
    pass_through: bool
    kept: Split
    order: str
    kept_us: float
    stack_us: float | None
    route: int | None
    reasons: list[str]
    level0: Option
    level1: Option | None
    notes: list[str]


class Limits(Strict, frozen=True, kw_only=True):
    """Sizes of the server, in tokens and sequences; none is left to vLLM."""

    block_size: int
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int | None


class Level(Strict, frozen=True, kw_only=True):
    """Settings and options of the serve command; `costs` says what they cost in words."""

    level: int
    settings: dict[str, str]
    flags: dict[str, str]
    costs: list[str]
    over_stack: float | None


class Plan(Strict, frozen=True, kw_only=True):
    """Everything that an export says."""

    schema: str
    target: str
    source: Source
    model: ModelShape
    serve: str
    tensor_parallel: int
    window_layers: int
    device: TunedDevice
    mode: str
    rules: str
    limits: Limits
    entries: list[Planned]
    levels: list[Level]
    warnings: list[str]

    def level(self, number: int) -> Level | None:
        """A level, none if it is not exported."""
        return next((one for one in self.levels if one.level == number), None)


def save_plan(plan: Plan, folder: Path) -> None:
    """Write `export.json`."""
    text = json.dumps(msgspec.to_builtins(plan), indent=1, allow_nan=False)
    write_atomic(folder / NAME, f"{text}\n".encode())


def load_plan(folder: Path) -> Plan:
    """Read `export.json`.

    Raises:
        TunedError: it is not there, damaged, or of another schema.
    """
    path = folder / NAME
    hint = "it is written by `overlap export`; export again"
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise TunedError(f"cannot read {path}: {error.strerror}", hint) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise TunedError(f"{path} is damaged: {error}", hint) from error
    if plan.schema != SCHEMA:
        raise TunedError(f"{path} has schema {plan.schema!r}, this version reads {SCHEMA}", hint)
    return plan
