"""How many splits, in how many orders, are ranked per second: capture, op times and queues of a two-layer 8B window.

    python benchmarks/ranking.py [--splits 150]

One process on one core. Every split is captured anew, costed by the Gaudi2 model and put into program order and each of
the list schedules, of which the best counts: a ranked candidate is a pair of a split and an order.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from machine import describe
from rich.console import Console

from overlap.app.config import SweepRoot, from_config
from overlap.app.launch import register
from overlap.devices.registry import open_device
from overlap.presets import build_workload
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, enumerate_space
from overlap.search.journal import Journal
from overlap.search.orders.rules import starts
from overlap.search.progress import Progress
from overlap.search.screen import screen

OVERRIDES = ["workload=llama_3_1_8b_prefill", "workload.bucket.query=1024", "device=gaudi2", "space=model"]


def main() -> None:
    """Time one screening."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=150)
    chosen = parser.parse_args()
    print(describe())
    torch.set_num_threads(1)
    register()
    with initialize_config_module("overlap.conf", version_base="1.3"):
        root = from_config(SweepRoot, compose("sweep", OVERRIDES))
    workload, device = build_workload(root.workload), open_device(root.device)
    splits, _ = enumerate_space(root.space, workload)
    random.Random(0).shuffle(splits)
    splits = splits[: chosen.splits]
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder), {}) as journal:
        bench = Bench(workload, device, {}, 0)
        bench.learn(BASELINE.split, 1)
        orders = 1 + len(list(starts(bench.problem(BASELINE.split), bench.program(BASELINE.split))))
        began = time.perf_counter()
        screen(bench, journal, splits, ["program", "list"], 1, Progress(Console(quiet=True)))
        seconds = time.perf_counter() - began
        ops = statistics.mean(len(bench.program(split).ops) for split in splits)
    print(f"{len(splits)} splits of {ops:.0f} ops on average, {orders} orders each, in {seconds:.1f} s")
    print(f"{len(splits) / seconds:.0f} splits, {len(splits) * orders / seconds:.0f} pairs per second")


if __name__ == "__main__":
    main()
