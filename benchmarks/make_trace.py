"""Write a large synthetic Kineto trace: `python benchmarks/make_trace.py FILE EVENTS`.

Not a profiler's output. It has the shape of one: the CPU side of PyTorch on one thread (operator, launch, flow arrow)
and two streams of kernels, GEMMs on one and elementwise work on the other, that overlap in part. The text is laid out
as Kineto prints it, about 300 bytes per event.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

BASE_NS = 1767189312000000000
PER_LAUNCH = 5  # operator, launch, arrow out, arrow in, kernel
STEPS = 10

HEAD = f"""{{
  "schemaVersion": 1,
  "deviceProperties": [
    {{
      "id": 0, "name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 84942979072,
      "computeMajor": 9, "computeMinor": 0, "maxThreadsPerBlock": 1024, "numSms": 132
    }}
  ],
  "distributedInfo": {{"backend": "nccl", "rank": 0, "world_size": 1}},
  "SYNTHETIC": "written by benchmarks/make_trace.py",
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": {BASE_NS},
  "traceEvents": [
"""

META = """  {
    "name": "process_name", "ph": "M", "ts": 1000.000, "pid": 0, "tid": 0,
    "args": {
      "name": "python"
    }
  }"""

KERNELS = (
    (7, "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel"),
    (13, "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>, std::array>"),
    (7, "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1_execute_segment_k_off_kernel"),
    (13, "void (anonymous namespace)::softmax_warp_forward<c10::BFloat16, c10::BFloat16, float, 10, false, false>"),
)
OPS = ("aten::mm", "aten::add", "aten::bmm", "aten::_softmax")


def _us(time_ns: int) -> str:
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"


def events(count: int, seed: int = 0) -> Iterator[str]:
    """About `count` rows as Kineto prints them; whole launches, so up to four fewer."""
    random_ = random.Random(seed)
    host, free = 1_000_000, {7: 1_000_000, 13: 1_000_000}
    launches = (count - STEPS - 1) // PER_LAUNCH
    per_step, step_start = -(-launches // STEPS), host
    for number in range(launches):
        stream, kernel = KERNELS[number % 4]
        length = random_.randrange(900, 60_000)
        start = max(free[stream], host + 4_000) + random_.randrange(1_100)
        free[stream] = start + length
        yield from _launch(number + 1, OPS[number % 4], kernel, stream, host, start, length)
        host += random_.randrange(8_000, 24_000)
        if (number + 1) % per_step == 0 or number + 1 == launches:
            step_end = max(host, *free.values())
            yield _row("user_annotation", f"ProfilerStep#{number // per_step}", 4242, 4242, step_start, step_end, "")
            step_start = host = step_end


def _launch(number: int, op: str, kernel: str, stream: int, host: int, start: int, length: int) -> Iterator[str]:
    link = f'"External id": {number}'
    yield _row("cpu_op", op, 4242, 4242, host, host + 7_000, f'{link},"Record function id": 0, "Ev Idx": {number}')
    args = f'{link},"cbid": 211, "correlation": {number}'
    yield _row("cuda_runtime", "cudaLaunchKernel", 4242, 4242, host + 2_000, host + 6_000, args)
    yield _arrow("s", number, 4242, 4242, host + 2_000)
    args = f'{link},"queued": 0, "device": 0, "context": 1,\n      "stream": {stream}, "correlation": {number},'
    args += '\n      "registers per thread": 168, "shared memory": 0,\n      "blocks per SM": 2.4, "warps per SM": 9.6,'
    args += '\n      "grid": [320, 1, 1],\n      "block": [128, 1, 1],\n      "est. achieved occupancy %": 12'
    yield _row("kernel", kernel, 0, stream, start, start + length, args)
    yield _arrow("f", number, 0, stream, start)


def _row(cat: str, name: str, pid: int, tid: int, start: int, end: int, args: str) -> str:
    return (
        f'  {{\n    "ph": "X", "cat": "{cat}", "name": "{name}", "pid": {pid}, "tid": {tid},\n'
        f'    "ts": {_us(start)}, "dur": {_us(end - start)},\n    "args": {{\n      {args}\n    }}\n  }}'
    )


def _arrow(ph: str, number: int, pid: int, tid: int, time_ns: int) -> str:
    bind = ', "bp": "e"' if ph == "f" else ""
    return (
        f'  {{\n    "ph": "{ph}", "id": {number}, "pid": {pid}, "tid": {tid}, "ts": {_us(time_ns)},\n'
        f'    "cat": "ac2g", "name": "ac2g"{bind}\n  }}'
    )


def write(path: Path, count: int) -> None:
    """Write a trace of about `count` events to `path`."""
    with path.open("w") as file:
        file.write(HEAD + META)
        for row in events(count):
            file.write(",\n" + row)
        file.write('\n  ],\n  "traceName": "synthetic.pt.trace.json"\n}\n')


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
