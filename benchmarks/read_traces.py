"""Load and analyse a large Kineto trace: `overlap` beside HolisticTraceAnalysis, each run in a process of its own.

    python benchmarks/read_traces.py [--events 200000,1000000,4000000] [--rounds 5] [--hta PYTHON]

Per size a SYNTHETIC trace is written by `make_trace.py`. Then, round by round, in one process each:

    cold     overlap: read the file and analyse it (all of `overlap.analysis.whole`)
    cached   the same with the tables of an earlier run, from Parquet
    command  `overlap analyze` as a user types it, cold, with its start, report, tables and Perfetto trace
    hta      HolisticTraceAnalysis 0.5.0: load, temporal breakdown (--hta: the Python of an environment that has it)

Reported are medians, and peak resident memory of the process (of its largest process, where it forks).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
COMMON = """
import json, resource, sys, time
def done(start):
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps([time.perf_counter() - start, peak * 1024]))
"""
OURS = """
from pathlib import Path
from overlap.traces.read import read_trace
from overlap.analysis.whole import analyse
cache = Path(sys.argv[2]) if sys.argv[2] else None
start = time.perf_counter()
found = analyse(read_trace(Path(sys.argv[1]), cache=cache))
assert found[0].partition.window_ns > 0
done(start)
"""
COMMAND = """
import subprocess
start = time.perf_counter()
subprocess.run([sys.executable, "-m", "overlap", "analyze", "trace=" + sys.argv[1], "hydra.run.dir=" + sys.argv[2]],
               check=True, stdout=subprocess.DEVNULL)
done(start)
"""
HTA = """
import logging
logging.disable(logging.CRITICAL)
import contextlib, io
from hta.trace_analysis import TraceAnalysis
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    found = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir="").get_temporal_breakdown(visualize=False)
assert len(found) == 1
done(start)
"""


def timed(python: str, code: str, *arguments: str, cwd: str) -> tuple[float, int]:
    """Seconds and peak bytes of one run in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": cwd}
    answer = subprocess.run(
        [python, "-c", COMMON + code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment,
    )
    seconds, peak = json.loads(answer.stdout.splitlines()[-1])
    return seconds, peak


def measure(trace: Path, rounds: int, hta: str, folder: str) -> dict[str, list[tuple[float, int]]]:
    """Runs of every variant, interleaved."""
    found: dict[str, list[tuple[float, int]]] = {}
    timed(sys.executable, OURS, str(trace), f"{folder}/cache", cwd=folder)  # fills the cache
    time.sleep(3)  # a file that was changed a moment ago is hashed again
    timed(sys.executable, OURS, str(trace), f"{folder}/cache", cwd=folder)
    for number in range(rounds):
        runs = {
            "cold": (sys.executable, OURS, str(trace), ""),
            "cached": (sys.executable, OURS, str(trace), f"{folder}/cache"),
            "command": (sys.executable, COMMAND, str(trace), f"{folder}/run{number}"),
        }
        if hta:
            runs["hta"] = (hta, HTA, str(trace))
        for name, (python, code, *arguments) in runs.items():
            found.setdefault(name, []).append(timed(python, code, *arguments, cwd=folder))
            subprocess.run(["rm", "-rf", f"{folder}/overlap"], check=True)  # the command's cache
    return found


def main() -> None:
    """Print a table per size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", default="200000,1000000,4000000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hta", default="")
    options = parser.parse_args()
    print(f"command   python {' '.join(sys.argv)}")
    print(f"date      {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.2f}")
    cold: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for events in map(int, options.events.split(",")):
            trace = Path(folder) / f"{events}.json"
            subprocess.run([sys.executable, str(HERE / "make_trace.py"), str(trace), str(events)], check=True)
            size = trace.stat().st_size
            print(f"\n{events:,} events, {size / 1e6:.1f} MB")
            found = measure(trace, options.rounds, options.hta, folder)
            for name, runs in found.items():
                seconds, peaks = [one for one, _ in runs], [peak for _, peak in runs]
                middle = statistics.median(seconds)
                print(
                    f"  {name:8} {middle:7.3f} s [{min(seconds):.3f}, {max(seconds):.3f}]"
                    f"  peak {max(peaks) / 1e6:7.1f} MB = {max(peaks) / size:.2f}x the file"
                )
            cold[events] = statistics.median(seconds for seconds, _ in found["cold"])
            if "hta" in found:
                ratios = [hta / ours for (hta, _), (ours, _) in zip(found["hta"], found["cold"], strict=True)]
                print(
                    f"  hta / cold: {statistics.median(ratios):.1f}x (by round, {min(ratios):.1f} to {max(ratios):.1f})"
                )
            trace.unlink()
    sizes = sorted(cold)
    for small, large in pairwise(sizes):
        print(f"{large:,} / {small:,} events: {cold[large] / cold[small]:.2f}x the time")


if __name__ == "__main__":
    main()
