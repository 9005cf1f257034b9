"""The steps of `overlap verify`: load the model, time the block, run the model in all ways, judge, write.

The block is timed on the device's engines, then the device is closed and the model runs with all cores, or on the card.
Each verdict is written as soon as it is there.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console

from overlap.commands.verify_block import BlockResult, device_config, time_block
from overlap.commands.verify_model import PLAIN, TUNED, UNTOUCHED, ModelResult, compare_model
from overlap.commands.verify_source import check_model, load_model
from overlap.devices.host.device import cpu_name
from overlap.devices.registry import kind_of, open_device
from overlap.errors import ServeError
from overlap.search.lock import device_lock
from overlap.search.progress import Progress
from overlap.serve.hf.seams import find_seam, host_of
from overlap.serve.lookup import check_key
from overlap.serve.tuned import Entry, Spread, Tuned, Verified
from overlap.serve.tuned_file import load, save, save_json
from overlap.serve.verdict import judge
from overlap.workload import Bucket

NS_PER_US = 1e-3
KIND_ON = {"cpu": "host", "hpu": "hpu"}


@dataclass(frozen=True)
class Options:
    """What was asked for: `place` is the type of the device that the model runs on."""

    path: Path
    model: str
    place: str
    rounds: int
    block_rounds: int
    tokens: int
    layers: int | None


@dataclass(frozen=True)
class Outcome:
    """An entry with its verdict, where the order of its block came from, and the calls that ran tuned."""

    entry: Entry
    verified: Verified
    order: str
    ran: str

    @property
    def tokens_in_words(self) -> str:
        """Whether they are equal, and what to make of it if not."""
        found = self.verified
        if found.tokens_equal:
            return f"all {found.tokens} equal"
        step = (found.first_difference or 0) + 1
        why = "a tie of the untouched model" if found.tie else "no tie"
        return f"differ from number {step} of {found.tokens} on, {why}"


def verify(tuned: Tuned, entries: Sequence[Entry], options: Options) -> Iterator[Outcome]:
    """Verify one entry after the other.

    Raises:
        OverlapError: the config is not for this model or this place, or the file cannot be written.
    """
    progress = Progress(Console(stderr=True))
    config = device_config(tuned)
    same_place = KIND_ON.get(options.place) == tuned.device.kind
    waive = () if same_place else ("device", "software")
    threads = torch.get_num_threads()
    if options.model:
        check_model(options.model)
    with _frozen(), device_lock(kind_of(config), config.lock, config.lock_timeout_s, progress.say):
        blocks = _blocks(tuned, entries, options, progress) if same_place else {}
        # Opening the host gives this thread a share of its own.
        torch.set_num_threads(threads)
        device = _place(options.place, tuned)
        progress.say(f"loading {options.model or tuned.model.name} onto {device.type}")
        model, words = load_model(options.model, tuned.model, options.layers, device)
        config_for = _cut(tuned, options.layers)
        find_seam(model)
        for warning in check_key(config_for, host_of(model), waive):
            progress.say(warning)
        for entry in entries:
            found = compare_model(model, config_for, entry, options.rounds, options.tokens, waive, progress)
            block = blocks.get(entry.bucket)
            verified = _verified(block, found, words, model, options)
            _write(options.path, entry, verified)
            yield Outcome(entry, verified, block.order if block else "", str(found.ran))


@contextmanager
def _frozen() -> Iterator[None]:
    """Garbage collections, one before every sample, need not look at the thousands of classes of transformers."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _blocks(tuned: Tuned, entries: Sequence[Entry], options: Options, progress: Progress) -> dict[Bucket, BlockResult]:
    """Results at block level, by bucket."""
    with closing(open_device(device_config(tuned))) as device:
        found = {}
        for entry in entries:
            run_dir = (options.path.parent / entry.trace).parent.parent
            found[entry.bucket] = time_block(tuned, entry, run_dir, device, options.block_rounds, progress)
        return found


def _place(place: str, tuned: Tuned) -> torch.device:
    """The device of the model, ready to use."""
    if place == "hpu":
        from overlap.devices.hpu.bridge import Bridge
        from overlap.devices.hpu.environment import LAZY_MODE, NO, YES

        mode = tuned.device.software.get("mode", "")
        os.environ[LAZY_MODE] = YES if mode.startswith("lazy") else NO
        Bridge()
    elif place == "cuda" and not torch.cuda.is_available():
        raise ServeError("there is no CUDA device", "device=cpu")
    return torch.device(place)


def _cut(tuned: Tuned, layers: int | None) -> Tuned:
    """The config as it would be for a model of fewer layers."""
    if layers is None:
        return tuned
    if not tuned.window_layers <= layers <= tuned.model.layers:
        hint = f"from {tuned.window_layers}, the layers of the window, to {tuned.model.layers}"
        raise ServeError(f"layers={layers}", hint)
    return msgspec.structs.replace(tuned, model=replace(tuned.model, layers=layers))


def _verified(block: BlockResult | None, found: ModelResult, words: str, model: Any, options: Options) -> Verified:
    verdict, reason = judge(block.speedup if block else None, found.speedup, found.answers, found.ran)
    attention = model.config._attn_implementation
    version = importlib.metadata.version("transformers")
    answers = found.answers
    return Verified(
        verdict=verdict,
        reason=reason,
        date=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M UTC}",
        model=words,
        stack=f"transformers {version}, torch {torch.__version__}, {attention} attention",
        device=_device_name(model.device),
        evidence="measured",
        block=Spread.of(block.speedup) if block else None,
        model_speedup=Spread.of(found.speedup),
        model_over_eager=Spread.of(found.over_plain) if PLAIN in found.times_ns else None,
        model_latency_us=Spread.of(found.times_ns[TUNED], NS_PER_US),
        untouched_latency_us=Spread.of(found.times_ns[UNTOUCHED], NS_PER_US),
        tokens=answers.tokens,
        tokens_equal=answers.first_difference is None,
        first_difference=answers.first_difference,
        tie=answers.tie,
        logits_rel_l2=float(f"{answers.logits_rel_l2:.3g}") if math.isfinite(answers.logits_rel_l2) else None,
        peak_bytes=found.peaks[TUNED],
        untouched_peak_bytes=found.peaks[UNTOUCHED],
        rounds=options.rounds,
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cpu":
        return f"{cpu_name()}, {torch.get_num_threads()} threads"
    counters: Any = torch.get_device_module(device)
    return str(counters.get_device_name())


def _write(path: Path, entry: Entry, verified: Verified) -> None:
    """Put the verdict beside the entry, in the file as it is now: others may have written to it meanwhile."""
    now = load(path)
    rows = [msgspec.structs.replace(e, verified=verified) if e.bucket == entry.bucket else e for e in now.entries]
    (save_json if path.suffix == ".json" else save)(now.with_entries(rows), path)
