"""What a tuned config must obey beside its types: every rule finds one kind of number that no run can have written.

A rule takes an entry with its file and yields (path within the entry, sentence). Two of them exist to find wrong units:
times, bound and gap are tied to each other, and so are speed-up and times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import msgspec

from overlap.errors import WorkloadError
from overlap.serve.tuned import Busy, Entry, Spread, Tuned
from overlap.serve.verdict import VERDICTS
from overlap.split import violations
from overlap.workload import Bucket, Workload

EVIDENCE = ("measured", "simulated")
ORDERS = ("program", "list", "searched")
# What rounding to six digits, and the bound to ns, leaves open.
ROUNDING = 1e-3
# A speed-up is the median of paired ratios, which is near the ratio of the medians and not equal to it.
PAIRED = 2.0

Faults = Iterator[tuple[str, str]]


def faults(tuned: Tuned) -> Faults:
    """Everything that is wrong, with the path to it."""
    if tuned.device.evidence not in EVIDENCE:
        yield ".device.evidence", f"{tuned.device.evidence!r} is not one of {', '.join(EVIDENCE)}"
    if shape := list(_shape(tuned)):
        yield from shape
        return
    first: dict[object, int] = {}
    for number, entry in enumerate(tuned.entries):
        at = f".entries[{number}]"
        if entry.bucket in first:
            yield f"{at}.bucket", f"{entry.bucket} is there twice, first as entry {first[entry.bucket]}"
        first.setdefault(entry.bucket, number)
        for rule in RULES:
            for path, sentence in rule(entry, tuned):
                yield f"{at}{path}", sentence


def _shape(tuned: Tuned) -> Faults:
    """Without a degree and a window that the model can have, no entry has a workload."""
    for name in ("norm_eps", "rope_theta"):
        if not math.isfinite(getattr(tuned.model, name)):
            yield f".model.{name}", f"{getattr(tuned.model, name)} is no number"
    tried = ((".tensor_parallel", tuned.tensor_parallel, 1), (".window_layers", 1, tuned.window_layers))
    for path, degree, window in tried:
        try:
            Workload(tuned.model, Bucket(), degree, window)
        except WorkloadError as error:
            yield path, str(error)


def _words(entry: Entry, tuned: Tuned) -> Faults:
    if entry.evidence != tuned.device.evidence:
        yield ".evidence", f"{entry.evidence!r}, and the device's is {tuned.device.evidence!r}"
    if entry.order not in ORDERS:
        yield ".order", f"{entry.order!r} is not one of {', '.join(ORDERS)}"


def _split(entry: Entry, tuned: Tuned) -> Faults:
    for rule in violations(entry.split, tuned.workload(entry)):
        yield ".split", rule
    if entry.pass_through and entry.split.changed():
        yield ".split", f"{entry.split}, in an entry that passes through"


def _alternatives(entry: Entry, tuned: Tuned) -> Faults:
    for number, one in enumerate(entry.alternatives):
        at = f".alternatives[{number}]"
        for rule in violations(one.split, tuned.workload(entry)):
            yield f"{at}.split", rule
        if one.order not in ORDERS:
            yield f"{at}.order", f"{one.order!r} is not one of {', '.join(ORDERS)}"


def _spreads(entry: Entry, _: Tuned) -> Faults:
    for path, spread in _all_spreads(entry):
        if not (math.isfinite(spread.median) and spread.median > 0):
            yield f"{path}.median", f"{spread.median} is no positive number"
        elif not 0 <= spread.low <= spread.median <= spread.high:
            yield path, f"low {spread.low}, median {spread.median} and high {spread.high} are not in order"


def _all_spreads(entry: Entry) -> Iterator[tuple[str, Spread]]:
    owners: list[tuple[str, object]] = [("", entry), (".verified", entry.verified)]
    owners += [(f".alternatives[{number}]", one) for number, one in enumerate(entry.alternatives)]
    for path, owner in owners:
        if isinstance(owner, msgspec.Struct):
            for name in owner.__struct_fields__:
                if isinstance(value := getattr(owner, name), Spread):
                    yield f"{path}.{name}", value


def _busy(entry: Entry, _: Tuned) -> Faults:
    for name in ("busy", "baseline_busy"):
        found: Busy = getattr(entry, name)
        for engine in found.__struct_fields__:
            if not 0 <= getattr(found, engine) <= 1:
                yield f".{name}.{engine}", f"{getattr(found, engine)} is no fraction of the window, from 0 to 1"
                return
        if found.both > min(found.mme, found.tpc) + ROUNDING:
            yield f".{name}.both", f"{found.both} is more than the time of one of the engines"


def _numbers(entry: Entry, _: Tuned) -> Faults:
    if not (math.isfinite(entry.bound_us) and entry.bound_us > 0):
        yield ".bound_us", f"{entry.bound_us} is no positive number"
    if not math.isfinite(entry.gap):
        yield ".gap", f"{entry.gap} is no number"
    for name in ("peak_bytes", "baseline_peak_bytes"):
        if getattr(entry, name) < 0:
            yield f".{name}", f"{getattr(entry, name)} is negative"
    if entry.samples < 1:
        yield ".samples", f"{entry.samples} samples"
    for name in ("rel_l2", "baseline_rel_l2"):
        value = getattr(entry.error, name)
        if not 0 <= value < math.inf:
            yield f".error.{name}", f"{value} is no error"
    for name in entry.attribution.__struct_fields__ if entry.attribution else ():
        value = getattr(entry.attribution, name)
        if value is not None and not 0 < value < math.inf:
            yield f".attribution.{name}", f"{value} is no factor"


def _verified(entry: Entry, _: Tuned) -> Faults:
    if (found := entry.verified) is None:
        return
    for name, known in (("verdict", VERDICTS), ("evidence", EVIDENCE)):
        if getattr(found, name) not in known:
            yield f".verified.{name}", f"{getattr(found, name)!r} is not one of {', '.join(known)}"
    for name in ("tokens", "rounds"):
        if getattr(found, name) < 1:
            yield f".verified.{name}", f"{getattr(found, name)} {name}"


def _gap(entry: Entry, _: Tuned) -> Faults:
    """Gap is time over bound, less one: times in another unit do not fit."""
    told = entry.latency_us.median / entry.bound_us - 1 if entry.bound_us > 0 else math.nan
    if not abs(told - entry.gap) <= ROUNDING * (1 + abs(told)):
        yield (
            ".gap",
            f"{entry.gap}, but latency_us.median {entry.latency_us.median} over bound_us {entry.bound_us}, less one, "
            f"is {told:.6g}: a unit is wrong, or a number was edited",
        )


def _speedup(entry: Entry, _: Tuned) -> Faults:
    """A speed-up is near the ratio of the times it was made of."""
    told = entry.baseline_latency_us.median / entry.latency_us.median if entry.latency_us.median > 0 else math.nan
    if not told / PAIRED <= entry.speedup.median <= told * PAIRED:
        yield (
            ".speedup.median",
            f"{entry.speedup.median}, but the times are {entry.baseline_latency_us.median} and "
            f"{entry.latency_us.median} us, {told:.4g} to one: a unit is wrong, or a number was edited",
        )


RULES: tuple[Callable[[Entry, Tuned], Faults], ...] = (
    _words,
    _split,
    _alternatives,
    _spreads,
    _busy,
    _numbers,
    _verified,
    _gap,
    _speedup,
)
