"""Queue overhead of the host device: what an op costs beside its own time, in µs.

Three programs of tiny ops (8×8), run from end to end:

    one queue   a chain of vector ops on the TPC queue; nobody waits for another queue
    ping-pong   matrix op, vector op, matrix op, ...; every op waits for the op before it, on the other queue
    two queues  a chain on each queue, side by side; nobody waits, but both threads want Python's lock

Overhead per op = (wall time of the run - isolated times of its ops) / number of ops; for `two queues` the isolated
times of the longer queue count. The median over the runs is what the limit of 50 µs is about.

    python benchmarks/queue_overhead.py [runs]
"""

from __future__ import annotations

import sys

from overlap.devices.host.memory import pool_memory

pool_memory()  # before torch allocates

import torch  # noqa: E402
from machine import describe  # noqa: E402

from overlap.capture import Recorder, op  # noqa: E402
from overlap.devices.config import DeviceConfig  # noqa: E402
from overlap.devices.host.device import HostDevice  # noqa: E402
from overlap.program import Engine, Program  # noqa: E402
from overlap.search.order import makespan_ns, op_times  # noqa: E402

OPS = 400
SIDE = 8


def chain(kinds: str) -> Program:
    """A chain of tiny ops: `v` a vector op, `m` a matrix op."""
    with Recorder() as recorder:
        x = w = recorder.input("x", (SIDE, SIDE), torch.float32)
        for number, kind in enumerate(kinds):
            with op(f"op{number}"):
                x = torch.mm(x, w) if kind == "m" else x * 0.5
        return recorder.finish({"x": x})


def two_chains(count: int) -> Program:
    """A chain of `count` vector ops and one of `count` matrix ops, taking turns in program order."""
    with Recorder() as recorder:
        first = second = w = recorder.input("x", (SIDE, SIDE), torch.float32)
        for number in range(count):
            with op(f"mme{number}"):
                first = torch.mm(first, w)
            with op(f"tpc{number}"):
                second = second * 0.5
        return recorder.finish({"first": first, "second": second})


def overheads_us(device: HostDevice, program: Program, runs: int) -> list[float]:
    """Overhead per op of every run, ascending."""
    order = range(len(program.ops))
    alone_ns = makespan_ns(program, order, op_times(program, device.op_times(program, 200)))
    runnable = device.prepare(program, order, {"x": torch.full((SIDE, SIDE), 0.1)})
    runnable.time(5)
    return sorted((wall_ns - alone_ns) / len(program.ops) / 1e3 for wall_ns in runnable.time(runs))


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    programs = {
        "one queue": chain("v" * OPS),
        "ping-pong": chain("mv" * (OPS // 2)),
        "two queues": two_chains(OPS // 2),
    }
    device = HostDevice(DeviceConfig())
    print(describe())
    print(f"device    {device.info.name}\nruns      {runs} per program, {OPS} ops each\n")
    print(f"{'overhead per op in µs':24}{'median':>8}{'p10':>8}{'p90':>8}   ops MME/TPC")
    for name, program in programs.items():
        found = overheads_us(device, program, runs)
        low, middle, high = (found[int(len(found) * share)] for share in (0.1, 0.5, 0.9))
        engines = [sum(one.engine is engine for one in program.ops) for engine in (Engine.MME, Engine.TPC)]
        print(f"{name:24}{middle:8.1f}{low:8.1f}{high:8.1f}   {engines[0]}/{engines[1]}")
    device.close()


if __name__ == "__main__":
    main()
