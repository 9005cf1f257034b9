"""Which entry of a tuned config is for a shape, and whether the config is for a model, dtype, device and software.

Terms
    found: the entry for a shape and how: `exact`, `padded` (the smallest tuned bucket that contains the shape, if the
        caller may pad to it), or none, with the reason.
    contains: the same phase, and no less of sequences, query tokens and context.
    smallest: the fewest scores to compute, batch · query · keys.
    key: what must agree before any number of the config means anything. A part that differs for certain is refused, a
        part that one side does not know is a warning. Of the software, what the caller names is compared.

There is no "nearest" bucket: a split that was measured on other shapes is a guess, and serving it a surprise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

import torch

from overlap.errors import TunedError
from overlap.serve.tuned import Entry, Tuned
from overlap.workload import Bucket, ModelShape

# Fields of a shape that decide no work: names, and constants of the arithmetic. The dtype is a key of its own.
WORDS = ("name", "norm_eps", "rope_theta", "dtype")
EXACT, PADDED, NONE = "exact", "padded", "none"
# Parts of the key that a caller may waive; the model is never one of them.
WAIVABLE = ("dtype", "device", "software")
HASH_DIGITS = 12
# A server sees every length of a cache; it need not remember all of them.
MOST_KNOWN = 1 << 16


@dataclass(frozen=True)
class Found:
    """What a look-up came to; `bucket` is the one to run at, that of the entry."""

    entry: Entry | None
    how: str
    reason: str = ""


class Lookup:
    """The entries of a config by bucket; answers are kept, for serving asks for the same few shapes again and again.

    While code is compiled nothing is kept and shapes are only compared, so that a graph for all lengths stays one.
    """

    def __init__(self, tuned: Tuned, pad: bool = False) -> None:
        self._entries = sorted(tuned.entries, key=lambda entry: (_scores(entry.bucket), entry.place))
        self._pad = pad
        self._known: dict[tuple[int, int, int], Found] = {}

    def find(self, batch: int, query: int, context: int) -> Found:
        """The entry for sequences, new tokens and cached tokens; one new token behind others is a decode step."""
        if torch.compiler.is_compiling():
            return self._search(batch, query, context)
        key = (batch, query, context)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._search(*key)
        return found

    def _search(self, batch: int, query: int, context: int) -> Found:
        if batch < 1 or query < 1:
            return Found(None, NONE, "nothing to compute")
        phase = "decode" if query == 1 and context > 0 else "prefill"
        able = []
        for entry in self._entries:
            bucket = entry.bucket
            if bucket.phase != phase:
                continue
            if bucket.batch == batch and bucket.query == query and bucket.context == context:
                return _judged(entry, EXACT)
            if self._pad and bucket.batch >= batch and bucket.query >= query and bucket.context >= context:
                able.append(entry)
        if able:
            return _judged(able[0], PADDED)
        return Found(None, NONE, f"no bucket {'contains' if self._pad else 'of'} this shape")


def _judged(entry: Entry, how: str) -> Found:
    return Found(None, NONE, "the baseline was the best") if entry.pass_through else Found(entry, how)


def _scores(bucket: Bucket) -> int:
    return bucket.batch * bucket.query * bucket.key_tokens


def shape_hash(model: ModelShape) -> str:
    """Equal for models whose layers do the same work, whatever they are called."""
    values = {name: value for name, value in asdict(model).items() if name not in WORDS}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


@dataclass(frozen=True)
class Host:
    """What a config is to be used on; empty where nobody knows. `kinds` are device kinds that the hardware may be."""

    model: ModelShape
    tensor_parallel: int
    kinds: Collection[str]
    software: Mapping[str, str]


def check_key(tuned: Tuned, here: Host, waived: Collection[str] = ()) -> list[str]:
    """Warnings about what nobody knows.

    Raises:
        TunedError: a part of the key differs for certain, and is not `waived`; or `waived` names no part.
    """
    if unknown := [name for name in waived if name not in WAIVABLE]:
        raise TunedError(f"{unknown[0]!r} cannot be waived", f"of {', '.join(WAIVABLE)}")
    _check_model(tuned, here)
    if "dtype" not in waived and here.model.dtype != tuned.model.dtype:
        raise TunedError(f"tuned for {tuned.model.dtype}, the model is {here.model.dtype}", "tune for its dtype")
    warnings = []
    if "device" not in waived:
        warnings += _device(tuned, here)
    if "software" not in waived:
        warnings += _software(tuned, here)
    return warnings


def _check_model(tuned: Tuned, here: Host) -> None:
    if shape_hash(here.model) != shape_hash(tuned.model):
        mine, theirs = asdict(here.model), asdict(tuned.model)
        differ = [f"{n} {theirs[n]}, not {mine[n]}" for n in mine if n not in WORDS and mine[n] != theirs[n]]
        raise TunedError(
            f"tuned for another model, {tuned.model.name}: {'; '.join(differ)}", "take the config of this model"
        )
    if here.tensor_parallel != tuned.tensor_parallel:
        raise TunedError(
            f"tuned for tensor_parallel {tuned.tensor_parallel}, the model runs at {here.tensor_parallel}",
            "every degree has shapes of its own: tune for it",
        )


def _device(tuned: Tuned, here: Host) -> list[str]:
    if not here.kinds:
        return [f"tuned on {tuned.device.name}; what this is, nobody knows"]
    if tuned.device.kind not in here.kinds:
        raise TunedError(
            f"tuned on {tuned.device.name}, and this is {' or '.join(here.kinds)}", "tune on the device that serves"
        )
    return [f"tuned on a model of the device, {tuned.device.name}"] if tuned.device.evidence == "simulated" else []


def _software(tuned: Tuned, here: Host) -> list[str]:
    """What both name must agree in the first two numbers of the version: a release is what changes speed."""
    warnings = []
    for name, mine in here.software.items():
        theirs = tuned.device.software.get(name, "")
        if not mine or not theirs:
            warnings.append(f"{name}: tuned with {theirs or 'an unknown version'}, here is {mine or 'an unknown one'}")
        elif _release(mine) != _release(theirs):
            raise TunedError(f"tuned with {name} {theirs}, here is {mine}", "tune anew: a release changes what is fast")
    return warnings


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split("+")[0].split(".")[:2])
