"""Damage files at random and read them: `python -m tests.fuzz 10000 [seed]`.

Contract under test: whatever the bytes, `read_trace` gives a trace whose partition sums exactly, or raises an
`OverlapError`; and it does so in bounded time.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from overlap.analysis.partition import partition
from overlap.analysis.whole import analyse
from overlap.errors import OverlapError
from overlap.traces.chrome import TraceInfo, write_chrome
from overlap.traces.read import read_trace
from overlap.traces.table import table_bytes
from tests.kineto_files import cuda_rows, document, hpu_rows

MOST_SECONDS = 10.0
TOKENS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"-1", b"1e400", b"NaN", b"1" * 30, b"\x00", b"\xff"),
    *(
        b"},{",
        b'{"ph":"X"',
        b'"traceEvents":[',
        b'"ts":',
        b"\n",
        b";",
        b"BEGIN",
        b"END",
        b"MME",
        b"TPC",
        b"18446744073709551415",
    ),
)
SAMPLES = Path(__file__).parents[1] / ".." / "shared" / "data" / "traces"


def seeds() -> dict[str, bytes]:
    """Sound files to damage: SYNTHETIC ones, and the real samples where they are."""
    found = {
        "cuda.json": json.dumps(document(cuda_rows()), indent=1).encode(),
        "hpu.json": json.dumps({"traceEvents": hpu_rows("Kernel", "Runtime"), "traceName": "x"}).encode(),
        "cuda.json.gz": gzip.compress(json.dumps(cuda_rows()).encode()),
        "tef.json": json.dumps(_tef()).encode(),
        "hw.csv": hw_csv().encode(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cuda.json"
        path.write_bytes(found["cuda.json"])
        trace = read_trace(path)
        own = write_chrome(trace.events, Path(folder) / "own.json", TraceInfo("device", "synthetic"))
        found |= {"own.json": own.read_bytes(), "own.parquet": table_bytes(trace)}
    if SAMPLES.is_dir():
        found |= {path.name: path.read_bytes() for path in SAMPLES.iterdir() if path.stat().st_size < 100_000}
    return found


def _tef() -> list[dict[str, object]]:
    names = [{"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "*TPC (accel0)"}}]
    rows = [
        {
            "ph": ph,
            "pid": 7,
            "tid": 1,
            "id": i // 2,
            "ts": 10.5 * i,
            "name": "n",
            "cat": "SP 1",
            "args": {"recipe id": 1},
        }
        for i, ph in enumerate("BE" * 8)
    ]
    return [*names, *rows]


def hw_csv() -> str:
    """A sound profile of two TPC lanes."""
    head = "Name,Trace Source,Engine,Event type,Timestamp[usec],recipeHandle,streamHandle,Recipe ID,Recipe name,"
    head += "Context ID,Device,Operation,Data Type,HW Event port,HW Event description,SPMU value"
    rows = [
        f"n{i // 2},HW,[HD0] TPC {i % 4 // 2},{ph},{554804519 + i}.123456,"
        f"0x1,0x2,61055,g,{i // 2},accel0,op,bf16,1,{what},"
        for i, (ph, what) in enumerate((("BEGIN", "TPC_SPU_START"), ("END", "TPC_SPU_START_TO_SPU_HALT")) * 6)
    ]
    return "\n".join((head, *rows)) + "\n"


def damaged(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to eight wounds."""
    packed = data[:2] == b"\x1f\x8b" and rng.random() < 0.7
    found = bytearray(gzip.decompress(data) if packed else data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(found) + 1)
        size = rng.choice((1, 1, 4, 40, 400))
        wound = rng.randrange(6)
        if wound == 0:
            found[at : at + size] = b""
        elif wound == 1:
            found[at:at] = rng.choice(TOKENS)
        elif wound == 2:
            found[at : at + len(token)] = (token := rng.choice(TOKENS))
        elif wound == 3:
            found[at : at + size] = rng.randbytes(size)
        elif wound == 4:
            other = rng.randrange(len(found) + 1)
            found[at:at] = found[other : other + size]
        else:
            del found[at:]
        if not found:
            break
    return gzip.compress(bytes(found)) if packed else bytes(found)


def run(count: int, seed: int) -> Iterator[str]:
    """Outcome of each of `count` damaged files: `trace`, or the name of the error."""
    files = seeds()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name = rng.choice(list(files))
            content = damaged(files[name], rng)
            path = Path(folder) / name
            path.write_bytes(content)
            start = time.perf_counter()
            try:
                trace = read_trace(path)
                for _, events in trace.events.group_by("device"):
                    partition(events)  # asserts that its parts sum to the window
                analyse(trace)
                outcome = "trace"
            except OverlapError as error:
                outcome = type(error).__name__ if str(error) else "an error that says nothing"
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{seed}-{number}-{name}"
                kept.write_bytes(content)
                print(f"input {number} of seed {seed} is kept as {kept}", file=sys.stderr)
                raise
            assert time.perf_counter() - start < MOST_SECONDS, f"input {number} of seed {seed} took too long"
            yield outcome


if __name__ == "__main__":
    began = time.perf_counter()
    outcomes = Counter(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    print(dict(outcomes), f"{time.perf_counter() - began:.0f} s")
