"""Correctness: what a candidate computes is compared with the fp32 reference before it is timed.

A candidate passes if, for every output (hidden states and written K/V), its relative L2 error is at most twice the
baseline's own error. That is the rule FlashAttention's tests use: it asks for what the plain implementation in the same
dtype achieves, not for a constant somebody picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overlap.devices.base import Gate
from overlap.errors import DeviceError, OverlapError
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.journal import Journal
from overlap.search.progress import Progress

FACTOR = 2.0
# Errors below this are rounding of the comparison itself (fp32 against fp32).
FLOOR = 1e-6


@dataclass(frozen=True)
class Checked:
    """What is known of a candidate beside its speed: relative L2 `errors` per output; `failure` names what broke."""

    candidate: Candidate
    errors: Mapping[str, float]
    peak_bytes: int
    gates: Mapping[str, Gate]
    failure: str = ""

    @property
    def worst_error(self) -> float:
        """Largest error over the outputs."""
        return max(self.errors.values(), default=float("inf"))


def check(bench: Bench, journal: Journal, candidates: Sequence[Candidate], progress: Progress) -> list[Checked]:
    """Check the baseline and `candidates`; a failure costs only the candidate that fails."""
    known = {record["entrant"]: record for record in journal.of_kind("check")}
    found: list[Checked] = []
    wanted = [BASELINE, *candidates]
    with progress.stage("checking results", sum(one.key not in known for one in wanted)) as step:
        for candidate in wanted:
            record = known.get(candidate.key)
            one = _read(candidate, record or _measure(bench, journal, candidate))
            found.append(one)
            if record is None:
                step(f"{candidate.key}: {one.failure or f'error {one.worst_error:.1e}'}")
    return [found[0], *(_against(found[0], one) for one in found[1:])]


def _measure(bench: Bench, journal: Journal, candidate: Candidate) -> dict[str, object]:
    try:
        errors = bench.errors(candidate)
        runnable = bench.runnable(candidate)
        gates = {name: [gate.passed, gate.value] for name, gate in runnable.gates().items()}
        peak, failure = runnable.peak_bytes, ""
    except DeviceError as error:
        if candidate == BASELINE:
            raise
        errors, gates, peak, failure = {}, {}, 0, str(error)
    plain = {name: value if value < float("inf") else -1.0 for name, value in errors.items()}
    return journal.append("check", entrant=candidate.key, errors=plain, peak_bytes=peak, gates=gates, failure=failure)


def _read(candidate: Candidate, record: Mapping[str, object]) -> Checked:
    """A journal record as an object; -1 stands for an infinite error, which JSON cannot hold."""
    errors, gates = record["errors"], record["gates"]
    assert isinstance(errors, dict)
    assert isinstance(gates, dict)
    return Checked(
        candidate=candidate,
        errors={name: value if value >= 0 else float("inf") for name, value in errors.items()},
        peak_bytes=int(str(record["peak_bytes"])),
        gates={name: Gate(*pair) for name, pair in gates.items()},
        failure=str(record["failure"]),
    )


def _against(baseline: Checked, one: Checked) -> Checked:
    """Add the failure that the errors or gates of `one` mean."""
    if one.failure:
        return one
    failure = ""
    for name, error in one.errors.items():
        limit = max(FACTOR * baseline.errors[name], FLOOR)
        if not error <= limit:
            failure = (
                f"{name} is off by {error:.1e}, more than {FACTOR:g} times the baseline's {baseline.errors[name]:.1e}"
            )
    for name, gate in one.gates.items():
        if not gate.passed:
            failure = f"gate {name}: {gate.value}"
    return Checked(one.candidate, one.errors, one.peak_bytes, one.gates, failure)


def require_sound(baseline: Checked) -> None:
    """Refuse to tune what does not work unsplit."""
    if not baseline.worst_error < 1.0:
        raise OverlapError(
            f"the baseline itself is off by {baseline.worst_error:.1e}", "nothing can be compared with it"
        )
