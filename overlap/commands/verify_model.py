"""The model-level half of `overlap verify`: a model of transformers, tuned against untouched, run by run.

Terms
    ways: `untouched` as the model was loaded, `tuned` with the config applied, `plain` with the attention that computes
        every score, which is what a block's baseline does.
    step: what is timed, one forward pass of the bucket's query tokens on a cache of its context.

All ways run in one process on the same weights and the same tokens; between two runs the model is put back exactly.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from overlap.commands.verify_answers import Generated, answers, compare
from overlap.commands.verify_memory import peak_bytes
from overlap.devices.host.device import quiet_gc
from overlap.search.progress import Progress
from overlap.serve.counts import Counts
from overlap.serve.transformers import apply, remove
from overlap.serve.tuned import Entry, Tuned
from overlap.serve.verdict import Answers
from overlap.stats import Interval, median_interval

UNTOUCHED, TUNED, PLAIN = WAYS = ("untouched", "tuned", "plain")
PLAIN_ATTENTION = "eager"
SEED = 0


@dataclass(frozen=True)
class ModelResult:
    """Times in ns by way, paired speed-ups of the tuned way, peaks in bytes, what was computed, calls of one step."""

    times_ns: dict[str, Interval]
    speedup: Interval
    over_plain: Interval
    peaks: dict[str, int | None]
    answers: Answers
    ran: Counts


def compare_model(
    model: Any, tuned: Tuned, entry: Entry, rounds: int, tokens: int, waive: tuple[str, ...], progress: Progress
) -> ModelResult:
    """Run `model` on random tokens of the entry's bucket."""
    bench = _ModelBench(model, replace_entries(tuned, entry), entry, waive)
    with torch.inference_mode():
        times, logits = bench.race(rounds, progress)
        ran = bench.ran
        peaks = {way: bench.peak(way) for way in (UNTOUCHED, TUNED)}
        with progress.stage(f"tokens, {entry.bucket}", 2) as step:
            made: dict[str, Generated] = {}
            for way in (UNTOUCHED, TUNED):
                made[way] = bench.generate(way, tokens)
                step(way)
    paired = {over: [a / b for a, b in zip(times[over], times[TUNED], strict=True)] for over in (UNTOUCHED, PLAIN)}
    return ModelResult(
        times_ns={way: median_interval(times[way]) for way in WAYS},
        speedup=median_interval(paired[UNTOUCHED]),
        over_plain=median_interval(paired[PLAIN]),
        peaks=peaks,
        answers=answers(
            made[UNTOUCHED],
            made[TUNED],
            compare(logits[TUNED], logits[UNTOUCHED]),
            compare(logits[PLAIN], logits[UNTOUCHED]),
        ),
        ran=ran,
    )


def replace_entries(tuned: Tuned, entry: Entry) -> Tuned:
    """The config with this entry alone, so that nothing but the bucket in question runs tuned."""
    return tuned.with_entries([entry])


class _ModelBench:
    """A model, the tokens of a bucket, and a cache of its context."""

    def __init__(self, model: Any, tuned: Tuned, entry: Entry, waive: tuple[str, ...]) -> None:
        self._model = model
        self._tuned = tuned
        self._waive = waive
        bucket = entry.bucket
        self._bucket = bucket
        generator = torch.Generator().manual_seed(SEED)
        size = (bucket.batch, bucket.key_tokens)
        ids = torch.randint(0, model.config.vocab_size, size, generator=generator)
        self._ids = ids.to(model.device)
        self._context: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.ran = Counts()

    def race(self, rounds: int, progress: Progress) -> tuple[dict[str, list[int]], dict[str, torch.Tensor]]:
        """Times of every way in interleaved rounds after one run each that does not count, and their logits."""
        self._fill()
        times: dict[str, list[int]] = {way: [] for way in WAYS}
        shuffle = random.Random(SEED)
        logits = {}
        with progress.stage(f"model, {self._bucket}", (rounds + 1) * len(WAYS)) as step:
            for number in range(rounds + 1):
                for way in shuffle.sample(WAYS, len(WAYS)):
                    time_ns, logits[way] = self._once(way)
                    times[way] += [time_ns] if number else []
                    step(f"{way} {time_ns / 1e6:.0f} ms")
        return times, logits

    def peak(self, way: str) -> int | None:
        """Bytes that a step needs at most beside what was there, where they can be told."""
        with self._as(way):
            cache = self._cache()
            return peak_bytes(lambda: self._step(cache), self._ids.device)

    def generate(self, way: str, tokens: int) -> Generated:
        """Greedy output behind the bucket's tokens."""
        with self._as(way), self._plain_generation():
            made = self._model.generate(
                self._ids,
                attention_mask=torch.ones_like(self._ids),
                past_key_values=self._cache(),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                num_beams=1,
                return_dict_in_generate=True,
                output_logits=True,
                pad_token_id=0,
            )
        return Generated(made.sequences[:, self._ids.shape[1] :].cpu(), [one.float().cpu() for one in made.logits])

    @contextmanager
    def _plain_generation(self) -> Iterator[None]:
        """Without the checkpoint's own settings: caches, penalties and drafts would decide the tokens too."""
        from transformers import GenerationConfig

        before, self._model.generation_config = self._model.generation_config, GenerationConfig()
        try:
            yield
        finally:
            self._model.generation_config = before

    def _once(self, way: str) -> tuple[int, torch.Tensor]:
        with self._as(way):
            cache = self._cache()
            with quiet_gc():
                _wait(self._ids.device)
                begin = time.perf_counter_ns()
                logits = self._step(cache)
                _wait(self._ids.device)
                end = time.perf_counter_ns()
            return end - begin, logits.float().cpu()

    def _step(self, cache: Any) -> torch.Tensor:
        ids = self._ids[:, self._bucket.context :]
        made: torch.Tensor = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return made

    @contextmanager
    def _as(self, way: str) -> Iterator[None]:
        """The model in one of the three ways, and as it was afterwards."""
        if way == UNTOUCHED:
            yield
            return
        if way == TUNED:
            applied = apply(self._model, self._tuned, waive=self._waive)
            try:
                yield
            finally:
                self.ran = applied.counts
                remove(self._model)
            return
        before = self._model.config._attn_implementation
        self._model.set_attn_implementation(PLAIN_ATTENTION)
        try:
            yield
        finally:
            self._model.set_attn_implementation(before)

    def _fill(self) -> None:
        """K and V of the context, by the untouched model."""
        if self._bucket.context:
            from transformers import DynamicCache

            cache = DynamicCache()
            self._model(self._ids[:, : self._bucket.context], past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._context = [(layer.keys, layer.values) for layer in cache.layers]

    def _cache(self) -> Any:
        """A new cache with the context in it."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        for number, (keys, values) in enumerate(self._context):
            cache.update(keys, values, number)
        return cache


def _wait(device: torch.device) -> None:
    """Until everything that was launched is done."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()
