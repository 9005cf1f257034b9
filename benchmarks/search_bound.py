"""How near searched orders come to the bound, and what they gain over the recipes of the field, on the Gaudi models.

    python benchmarks/search_bound.py [--models 1b,8b,70b,405b] [--devices gaudi2,gaudi3] [--buckets ...] [--jobs 2]

For every cell (model, device, bucket): the space of `conf/space/model.yaml` is ranked, the recipes are predicted, and
orders are searched with the effort given. Times are simulated. A row says what is fastest: time, bound, gap, the best
recipe and the gain over it. What a sweep keeps must also be a gain over all that the model leaves open.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import exp, log
from multiprocessing import get_context
from pathlib import Path

MODELS = {
    "1b": ("llama_3_2_1b", 1),
    "8b": ("llama_3_1_8b", 1),
    "70b": ("llama_3_1_70b", 8),
    "405b": ("llama_3_1_405b", 8),
}
BUCKETS = {
    "1x1k": ("prefill", 1, 1024, 0),
    "1x4k": ("prefill", 1, 4096, 0),
    "1x16k": ("prefill", 1, 16384, 0),
    "8x1k": ("prefill", 8, 1024, 0),
    "32x2k": ("decode", 32, 1, 2048),
}


@dataclass(frozen=True)
class Row:
    """One cell."""

    device: str
    model: str
    bucket: str
    time_ns: float
    bound_ns: float
    limit: str
    kept: str
    recipe: str
    recipe_ns: float
    stack_ns: float
    baseline_ns: float
    seconds: float
    splits: int

    def __str__(self) -> str:
        """As a row of a table."""
        gap, gain = self.time_ns / self.bound_ns - 1, self.recipe_ns / self.time_ns
        cells = (
            self.device,
            self.model,
            self.bucket,
            f"{self.baseline_ns / 1e3:.0f}" if self.baseline_ns else "does not fit",
            f"{self.stack_ns / 1e3:.0f}",
            f"{self.recipe_ns / 1e3:.0f} {self.recipe}",
            f"{self.time_ns / 1e3:.0f}",
            f"{self.bound_ns / 1e3:.0f} {self.limit}",
            f"{gap:.1%}",
            f"{gain:.3f}",
            self.kept.replace(" | ", ", "),
            f"{self.seconds:.0f} s",
        )
        return f"| {' | '.join(cells)} |"


def cell(job: tuple[str, str, str, dict[str, float]]) -> Row:
    """Search one cell."""
    import torch
    from hydra import compose, initialize_config_module
    from rich.console import Console

    from overlap.app.config import SweepRoot, from_config
    from overlap.app.launch import register
    from overlap.devices.registry import open_device
    from overlap.presets import build_workload
    from overlap.search.bench import Bench, stack_split
    from overlap.search.bounds import device_bound
    from overlap.search.candidate import BASELINE, enumerate_space, few_enough
    from overlap.search.journal import Journal
    from overlap.search.narrow import narrow
    from overlap.search.progress import Progress
    from overlap.search.recipes import recipe_candidates
    from overlap.search.screen import screen

    torch.set_num_threads(1)
    quiet = Progress(Console(quiet=True))
    chip, model, bucket, effort = job
    name, cards = MODELS[model]
    phase, batch, query, context = BUCKETS[bucket]
    register()
    with initialize_config_module("overlap.conf", version_base="1.3"):
        overrides = [f"workload={name}_{phase}", f"device={chip}", "space=model", f"workload.tensor_parallel={cards}"]
        overrides += [
            f"workload.bucket.{key}={value}"
            for key, value in zip(("batch", "query", "context"), (batch, query, context), strict=True)
        ]
        overrides += [f"search.{key}={value}" for key, value in effort.items()]
        root = from_config(SweepRoot, compose("sweep", overrides))
    began = time.monotonic()
    workload, device = build_workload(root.workload), open_device(root.device)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder), {}) as journal:
        bench = Bench(workload, device, {}, 0)
        splits, _ = few_enough(enumerate_space(root.space, workload)[0], workload, root.search.most_ops)
        recipes = recipe_candidates(root.space, workload, True)
        named = [one.split for candidates in recipes.values() for one in candidates]
        screened = screen(bench, journal, [*splits, *named], ["program", "list"], 1, quiet)
        narrowed = narrow(bench, journal, screened, recipes, root.search, quiet)
        best = min((one for one in narrowed.candidates[1:60] if not one.failure), key=lambda one: one.predicted_ns)
        known = {one.candidate: one.predicted_ns for one in narrowed.candidates}
        recipe, stood = narrowed.best_recipe
        if 0 < known[BASELINE] <= best.predicted_ns:
            best = narrowed.candidates[0]
        bound = device_bound(device, bench.program(best.candidate.split), {})
        stack = bench.program(stack_split(workload))
        return Row(
            chip,
            model,
            bucket,
            best.predicted_ns,
            bound.time_ns,
            bound.limit,
            best.candidate.key,
            recipe,
            stood.predicted_ns,
            device.predict_ns(stack, range(len(stack.ops))),
            known[BASELINE],
            time.monotonic() - began,
            len(screened),
        )


def main() -> None:
    """All cells, in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--devices", default="gaudi2,gaudi3")
    parser.add_argument("--buckets", default=",".join(BUCKETS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--refinements", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=25.0, help="per split")
    parser.add_argument("--deepening", type=int, default=0, help="more refinements for the best split")
    parser.add_argument("--most-ops", type=int, default=900)
    chosen = parser.parse_args()
    effort = {"search_splits": chosen.splits, "order_trials": chosen.trials, "order_refinements": chosen.refinements}
    effort |= {"order_seconds": chosen.seconds, "order_deepening": chosen.deepening, "most_ops": chosen.most_ops}
    jobs = [
        (device, model, bucket, effort)
        for device in chosen.devices.split(",")
        for model in chosen.models.split(",")
        for bucket in chosen.buckets.split(",")
    ]
    heads = ("device", "model", "bucket", "baseline us", "stack us", "best recipe us", "searched us", "bound us")
    print(f"| {' | '.join((*heads, 'gap', 'gain', 'split and order', 'took'))} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    with ProcessPoolExecutor(chosen.jobs, get_context("spawn")) as pool:
        for row in pool.map(cell, jobs):
            rows.append(row)
            print(row, flush=True)
    gaps = [row.time_ns / row.bound_ns - 1 for row in rows]
    gains = [row.recipe_ns / row.time_ns for row in rows]
    prefill = [gain for row, gain in zip(rows, gains, strict=True) if BUCKETS[row.bucket][0] == "prefill"]
    print(f"\ngap: median {statistics.median(gaps):.1%}, worst {max(gaps):.1%}; gain: least {min(gains):.3f}")
    if prefill:
        print(f"prefill: geometric mean of the gain {exp(statistics.mean(map(log, prefill))):.3f}")


if __name__ == "__main__":
    main()
