"""What the Gaudi model costs to run: compile and simulate programs of growing size, and sweep a 70B prefill.

python benchmarks/gaudi_model.py [--sweeps]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

from overlap.devices.gaudi.constants import load_constants
from overlap.devices.gaudi.kernels import Costs
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.plan import compile_program
from overlap.devices.gaudi.settings import GaudiConfig
from overlap.kernels.capture import capture
from overlap.split import Split
from overlap.stats import median
from overlap.workload import Bucket, ModelShape, Workload

LLAMA_70B = ModelShape("llama-3.1-70b", 8192, 64, 8, 128, 28672, 80)
SPLIT = Split(chunks=8, lag=1, masked_blocks="skip")
LAYERS = (3, 4, 10, 20, 40, 80)
REPEATS = 7
SWEEPS = (
    "llama_3_2_1b_prefill",
    "llama_3_1_8b_prefill",
    "llama_3_1_8b_decode",
    "llama_3_1_70b_prefill",
    "llama_3_1_405b_prefill",
)


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", action="store_true", help="also time whole sweeps on gaudi3, a process each")
    arguments = parser.parse_args()
    print(f"command: python benchmarks/gaudi_model.py {' '.join(sys.argv[1:])}")
    print("| layers of 70B, 8 chunks | ops | first, ms | again, ms (median of 7) | us per op |")
    print("|---:|---:|---:|---:|---:|")
    for layers in LAYERS:
        program = capture(Workload(LLAMA_70B, Bucket("prefill", 1, 2048, 0), 8, layers), SPLIT)
        costs = Costs(Machine.of(load_constants("gaudi3")))
        times = []
        for _ in range(REPEATS + 1):
            begin = time.perf_counter()
            compile_program(program, range(len(program.ops)), costs, GaudiConfig()).run()
            times.append((time.perf_counter() - begin) * 1e3)
        again = median(times[1:])
        ops = len(program.ops)
        print(f"| {layers} | {ops} | {times[0]:.1f} | {again:.1f} | {again * 1e3 / ops:.1f} |")
    if arguments.sweeps:
        print("\n| sweep on gaudi3 | s |\n|---|---:|")
        for workload in SWEEPS:
            print(f"| {workload} | {_sweep_s(workload):.1f} |", flush=True)


def _sweep_s(workload: str) -> float:
    """Wall time of one whole sweep."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "overlap", "sweep", "device=gaudi3", f"workload={workload}"]
        subprocess.run([*command, f"hydra.run.dir={folder}/run"], check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
