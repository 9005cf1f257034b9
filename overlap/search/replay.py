"""Replay: the decision of a recorded sweep again, perhaps with other settings, without the device.

Terms
    recorded: what the journal of a run directory holds: predictions, checks, samples, bounds, profiles.
    cut: a record of a round that the replay's settings have no place for; as if fewer rounds had been run.

How: the records go into a directory of its own under the identity that the replayed sweep has, and `run_sweep` goes on
with it, as it would with a killed sweep. Whatever it asks the device for was not recorded, and `ReplayDevice` says so.
There is no second copy of the decision's rules that could differ from the first.

What other settings can be replayed
    confidence, margin: any. A candidate that was dropped from the recorded race stays dropped.
    finalists: as many as were re-timed, or fewer. race_rounds, final_rounds: as many as were run, or fewer.
    race_candidates: as many as were checked, or fewer. orders, screen_repeats, seed: those of the record.
    If another split is kept than in the record, it has no profile and its gain no factors; the verdict is complete.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from overlap.devices.base import DeviceInfo
from overlap.devices.gaudi.constants import CHIPS
from overlap.devices.replay import ReplayDevice
from overlap.errors import ReplayError, RunDirError
from overlap.search.attribute import STAGE as ATTRIBUTION
from overlap.search.candidate import BASELINE, enumerate_space
from overlap.search.config import SearchConfig, SpaceConfig
from overlap.search.decide import FINAL
from overlap.search.journal import NAME, Journal
from overlap.search.progress import Progress
from overlap.search.sweep import RACE, SweepResult, identity, run_sweep
from overlap.split import Split
from overlap.workload import Workload

# Settings that decide what is measured in a way that no record of another value can answer.
FIXED = ("orders", "screen_repeats", "seed")
# The journal does not say how much memory the device had; what ran fitted.
ANY_MEMORY = 2**62


@dataclass(frozen=True)
class Recording:
    """A journal with what its header says."""

    records: Sequence[Mapping[str, Any]]
    workload: Workload
    device: DeviceInfo
    space: SpaceConfig
    search: SearchConfig

    def rounds(self, stage: str) -> Counter[str]:
        """Samples by entrant."""
        samples = (record for record in self.records if record["kind"] == "sample")
        return Counter(record["entrant"] for record in samples if record["stage"] == stage)

    @property
    def seeds(self) -> list[Split]:
        """Splits that were screened though they are not of the space: what other buckets kept, or the stack's."""
        known = {str(one) for one in [BASELINE.split, *enumerate_space(self.space, self.workload)[0]]}
        words = [record["split"] for record in self.records if record["kind"] == "screen"]
        return [parse_split(word) for word in words if word not in known]


def read_recording(run_dir: Path) -> Recording:
    """The journal of `run_dir`, which is left as it is and may be read-only.

    Raises:
        RunDirError: there is no journal, or it is damaged.
        ReplayError: the sweep was of a model, or of another version.
    """
    records = _records(run_dir)
    header = records[0]["identity"]
    device = header["device"]
    if device["kind"] in CHIPS:
        raise ReplayError(
            f"{run_dir} holds a sweep on the model of a {device['kind']}", "the model runs anywhere: sweep again"
        )
    try:
        return Recording(
            records,
            msgspec.convert(header["workload"], Workload),
            DeviceInfo(device["kind"], device["name"], "measured", ANY_MEMORY, device["software"], computes=False),
            msgspec.convert(header["space"], SpaceConfig),
            msgspec.convert(header["search"], SearchConfig),
        )
    except msgspec.ValidationError as error:
        raise ReplayError(f"{run_dir} was recorded by another version: {error}", "use that version") from error


def replay(run_dir: Path, search: SearchConfig | None = None, progress: Progress | None = None) -> SweepResult:
    """Decide again from what is recorded in `run_dir`, with the settings of `search`, or those of the record.

    Raises:
        ReplayError: the settings ask for something that was never recorded.
    """
    recording = read_recording(run_dir)
    search = search or recording.search
    _require(recording, search)
    kernel_ns: dict[str, int] = {}
    for record in recording.records:
        if record["kind"] == "kernels":
            kernel_ns.update(record["ns"])
    device = ReplayDevice(recording.device, kernel_ns, lambda label, serial: _why(recording, label, serial))
    with tempfile.TemporaryDirectory(prefix="overlap-replay-") as folder:
        place = Path(folder)
        header = identity(recording.workload, device, recording.space, search)
        _write(place, recording, header, search)
        if (run_dir / "traces").is_dir():
            shutil.copytree(run_dir / "traces", place / "traces")
        result = run_sweep(
            recording.workload,
            device,
            recording.space,
            search,
            place,
            progress or Progress(Console(quiet=True)),
            recording.seeds,
        )
    return replace(result, device=replace(recording.device, computes=True))


def parse_split(words: str) -> Split:
    """The split that `str` made `words` of."""
    if words == str(Split()):
        return Split()
    texts = dict(word.split("=", 1) for word in words.split())
    return msgspec.convert(texts, Split, strict=False)


def _records(run_dir: Path) -> list[dict[str, Any]]:
    """All records of a journal; read from a copy, because opening one locks and repairs it."""
    try:
        first = (run_dir / NAME).open(encoding="utf-8").readline()
        header = json.loads(first)["identity"]
        with tempfile.TemporaryDirectory(prefix="overlap-replay-") as folder:
            shutil.copyfile(run_dir / NAME, Path(folder) / NAME)
            with Journal(Path(folder), header) as journal:
                return journal.records
    except OSError as error:
        raise RunDirError(f"cannot read {run_dir / NAME}: {error.strerror}", "give the folder of a sweep") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{run_dir / NAME} is not a journal", "give the folder of a sweep") from error


def _require(recording: Recording, search: SearchConfig) -> None:
    """Refuse settings that ask for more than was measured."""
    for name in FIXED:
        if getattr(search, name) != getattr(recording.search, name):
            raise ReplayError(
                f"search.{name} is {getattr(search, name)}, the recorded sweep had {getattr(recording.search, name)}",
                "what was measured depends on it: sweep again",
            )
    for stage, name in ((RACE, "race_rounds"), (FINAL, "final_rounds")):
        done = recording.rounds(stage)[BASELINE.key]
        if getattr(search, name) > done:
            raise ReplayError(
                f"search.{name} is {getattr(search, name)}, {done} rounds were recorded",
                f"replay with at most {done}, or finish the sweep",
            )
    checked = sum(record["kind"] == "check" for record in recording.records) - 1
    if search.race_candidates > max(checked, recording.search.race_candidates):
        raise ReplayError(
            f"search.race_candidates is {search.race_candidates}, {checked} were checked and raced",
            f"replay with at most {checked}",
        )


def _write(place: Path, recording: Recording, header: Mapping[str, object], search: SearchConfig) -> None:
    """A journal of another identity with the records that `search` has a place for."""
    limits = {RACE: search.race_rounds, FINAL: search.final_rounds}
    kept = [
        record
        for record in recording.records[1:]
        if record["kind"] != "sample" or record["round"] < limits.get(record["stage"], search.attribution_rounds)
    ]
    with Journal(place, header) as journal:
        for record in kept:
            journal.append(**record)
        if recording.rounds(ATTRIBUTION)[BASELINE.key] < search.attribution_rounds:
            # A baseline that cannot be timed would end a sweep; one that has failed is passed over.
            reason = "its part in the attribution was never recorded"
            journal.append("failure", stage=ATTRIBUTION, entrant=BASELINE.key, session=journal.session, reason=reason)


def _why(recording: Recording, label: str, serial: bool) -> str:
    """Why a time that is missing costs only its candidate; empty if it must be refused."""
    split = label.rpartition("[")[2].rstrip("]")
    if serial:
        return f"{split}: this run of the attribution was never recorded"
    race, final = recording.rounds(RACE), recording.rounds(FINAL)
    raced = max((count for entrant, count in race.items() if entrant.startswith(f"{split} | ")), default=0)
    timed = max((count for entrant, count in final.items() if entrant.startswith(f"{split} | ")), default=0)
    if 0 < raced < recording.search.race_rounds:
        return f"{split}: dropped from the recorded race after {raced} rounds"
    if timed >= recording.search.final_rounds:
        return f"{split}: its attribution was never recorded"
    return ""
