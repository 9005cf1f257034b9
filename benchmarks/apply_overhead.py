"""What a call costs that a tuned config lets pass, in a Hugging Face model.

    python benchmarks/apply_overhead.py

Two figures, medians of interleaved rounds: the attention function alone, with a stand-in for the original, against that
stand-in; and a decode step of a small model, applied against untouched, per layer. Needs the extra `transformers`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import describe
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from overlap.serve.hf.seams import shape_of_model
from overlap.serve.transformers import apply, remove
from overlap.serve.tuned import SCHEMA, Busy, Entry, Errors, Spread, Tuned, TunedDevice
from overlap.split import Split
from overlap.workload import Bucket

LAYERS, ROUNDS, CALLS = 8, 41, 500


def main() -> None:
    """Print both."""
    print(describe())
    torch.manual_seed(0)
    torch.set_num_threads(1)
    values = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=LAYERS, vocab_size=128, **values)).eval()
    tuned = config(model, [Split(query_tile=64), Split(chunks=2, lag=1)])
    with torch.inference_mode():
        alone = function_alone(model, tuned)
        print(f"attention function, passing through: {alone:.2f} us a call")
        untouched, applied = decode_steps(model, tuned)
        print(f"decode step of {LAYERS} layers: {untouched:.1f} us untouched, {applied:.1f} us applied, ", end="")
        print(f"{(applied - untouched) / LAYERS:+.2f} us a layer")


def config(model: Any, splits: list[Split]) -> Tuned:
    """Buckets that no call here has."""
    one = Spread(median=1.0, low=1.0, high=1.0)
    busy = Busy(mme=0.5, tpc=0.5, both=0.1, idle=0.1)
    rest: dict[str, Any] = {"attribution": None, "speedup_vs_stack": None, "bound_us": 1.0, "gap": 0.0, "trace": "t"}
    rest |= {"busy": busy, "baseline_busy": busy, "error": Errors(rel_l2=0.0, baseline_rel_l2=0.0), "samples": 1}
    rest |= dict.fromkeys(("latency_us", "baseline_latency_us", "speedup"), one)
    rest |= {"evidence": "measured", "order": "program", "peak_bytes": 1, "baseline_peak_bytes": 1}
    buckets = [Bucket("prefill", 1, 1024 << number, 0) for number in range(len(splits))]
    entries = [
        Entry(bucket=bucket, pass_through=False, split=split, **rest)
        for bucket, split in zip(buckets, splits, strict=True)
    ]
    device = TunedDevice(kind="host", name="host", evidence="measured", software={"torch": str(torch.__version__)})
    return Tuned(
        schema=SCHEMA,
        model=shape_of_model(model),
        tensor_parallel=1,
        window_layers=2,
        device=device,
        entries=entries,
    )


def function_alone(model: Any, tuned: Tuned) -> float:
    """Median us that the function adds to what it calls."""
    function = apply(model, tuned).function
    remove(model)

    def original(*given: Any, **named: Any) -> tuple[None, None]:
        return None, None

    function._original = original
    module = model.model.layers[0].self_attn
    query, key = torch.randn(1, 4, 1, 16), torch.randn(1, 2, 100, 16)

    def many(call: Callable[..., Any]) -> float:
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            call(module, query, key, key, None, dropout=0.0, scaling=0.25)
        return (time.perf_counter_ns() - begin) / CALLS / 1e3

    return statistics.median(many(function) - many(original) for _ in range(ROUNDS))


def decode_steps(model: Any, tuned: Tuned) -> tuple[float, float]:
    """Median us of a step, untouched and applied."""
    ids = torch.randint(1, 128, (1, 1))
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for is_applied in (False, True):
            if is_applied:
                apply(model, tuned)
            cache = DynamicCache(config=model.config)
            model(ids, past_key_values=cache)
            begin = time.perf_counter_ns()
            for _ in range(20):
                model(ids, past_key_values=cache)
            times[is_applied].append((time.perf_counter_ns() - begin) / 20 / 1e3)
            if is_applied:
                remove(model)
    return statistics.median(times[False]), statistics.median(times[True])


if __name__ == "__main__":
    main()
