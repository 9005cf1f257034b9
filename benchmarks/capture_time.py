"""Time of `capture()` of the default workload's two-layer programs, in ms.

    first    the first capture of a process, PyTorch's own first-time work included (processes of their own)
    new      a later capture whose pieces are new
    cached   a capture whose pieces were recorded before

The limits are 200 ms for a two-layer program, 10 ms with cached pieces; the medians count.

    python benchmarks/capture_time.py [repeats]
"""

from __future__ import annotations

import subprocess
import sys
import time

from overlap.devices.host.memory import pool_memory

pool_memory()  # before torch allocates

from machine import WORKLOAD, describe  # noqa: E402

from overlap.capture import edges, recorder  # noqa: E402
from overlap.kernels.capture import capture  # noqa: E402
from overlap.split import Split  # noqa: E402
from overlap.stats import median  # noqa: E402

SPLITS = {
    "baseline": Split(),
    "chunks=4": Split(chunks=4, lag=1, masked_blocks="skip"),
    "chunks=8 tiles": Split(chunks=8, lag=1, query_tile=128, masked_blocks="skip"),
    "chunks=4 kv tiles": Split(chunks=4, lag=1, query_tile=256, kv_tile=512, masked_blocks="skip"),
}
PROCESSES = 3


def capture_ms(split: Split) -> float:
    """One capture."""
    begin = time.perf_counter_ns()
    capture(WORKLOAD, split)
    return (time.perf_counter_ns() - begin) / 1e6


def forget() -> None:
    """Drop all recorded pieces and geometries."""
    recorder._pieces.clear()
    edges._box.cache_clear()


def new_ms(split: Split) -> float:
    """One capture with nothing recorded before."""
    forget()
    return capture_ms(split)


def first_ms(name: str) -> float:
    """One capture in a process of its own."""
    command = [sys.executable, __file__, "--first", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measure and print."""
    if "--first" in sys.argv:
        print(capture_ms(SPLITS[sys.argv[-1]]))
        return
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(describe())
    print(f"workload  {WORKLOAD}\nmedian of {PROCESSES} processes (first) and {repeats} captures (new, cached)\n")
    print(f"{'capture in ms':24}{'ops':>6}{'first':>9}{'new':>9}{'cached':>9}")
    for name, split in SPLITS.items():
        first = median([first_ms(name) for _ in range(PROCESSES)])
        capture_ms(split)
        new = median([new_ms(split) for _ in range(repeats)])
        cached = median([capture_ms(split) for _ in range(repeats)])
        print(f"{name:24}{len(capture(WORKLOAD, split).ops):6}{first:9.1f}{new:9.1f}{cached:9.1f}")


if __name__ == "__main__":
    main()
