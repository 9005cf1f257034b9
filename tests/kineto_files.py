"""SYNTHETIC trace files for the readers' tests: rows as profilers write them, made up values."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

GEMM = "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64"
ADD = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*, 3> >(int)"
)
FLASH = "void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128>>(int)"
NCCL = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*, unsigned long, ncclWork*)"
BASE_NS = 1767189312000000000


def kernel(name: str, ts: float, dur: float, stream: int = 7, correlation: int = 1, **args: Any) -> dict[str, Any]:
    """A kernel of a CUDA trace."""
    link = {"External id": correlation, "device": 0, "stream": stream, "correlation": correlation, **args}
    return {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur, "args": link}


def host(name: str, cat: str, ts: float, dur: float, tid: Any = 42, **args: Any) -> dict[str, Any]:
    """A row of the CPU's side."""
    return {"ph": "X", "cat": cat, "name": name, "pid": 42, "tid": tid, "ts": ts, "dur": dur, "args": args}


def cuda_rows() -> list[dict[str, Any]]:
    """A GEMM beside an elementwise kernel, then attention, a collective and a copy; 100 us in all."""
    return [
        {"ph": "M", "name": "process_name", "pid": 42, "tid": 0, "ts": 0, "args": {"name": "python"}},
        host("ProfilerStep#3", "user_annotation", 0, 110),
        host(
            "aten::mm",
            "cpu_op",
            1,
            5,
            **{"External id": 1, "Input Dims": [[4, 8], [8, 2]], "Input type": ["float", "float"]},
        ),
        host("cudaLaunchKernel", "cuda_runtime", 2, 2, correlation=1),
        {"ph": "s", "id": 1, "pid": 42, "tid": 42, "ts": 2, "cat": "ac2g", "name": "ac2g"},
        {"ph": "f", "id": 1, "pid": 0, "tid": 7, "ts": 10, "cat": "ac2g", "name": "ac2g", "bp": "e"},
        kernel(GEMM, 10.001, 30.5, 7, 1),
        kernel(ADD, 20.25, 40, 13, 2),
        kernel(FLASH, 62, 8, 7, 3),
        kernel(NCCL, 75, 15, 21, 4),
        {
            **{"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "pid": 0, "tid": 7},
            **{"ts": 95, "dur": 5.001, "args": {"device": 0, "stream": 7, "correlation": 5, "bytes": 2048}},
        },
    ]


def document(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Rows with the keys that Kineto writes around them."""
    about = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "NVIDIA H100"}]}
    return {**about, "baseTimeNanoseconds": BASE_NS, **more, "traceEvents": rows, "traceName": "x.pt.trace.json"}


def saved(path: Path, content: Any) -> Path:
    """`content` in a file: bytes and text as they are, anything else as JSON; gzip where the name says so."""
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def hpu_rows(kernel_cat: str = "kernel", dma_cat: str = "hpu_op") -> list[dict[str, Any]]:
    """Two TPC lanes, an MME lane and a DMA lane of a Gaudi; MME and TPC overlap by 4 us."""
    lanes = {6000: "[HD0] MME", 7000: "[HD0] TPC 0", 7001: "[HD0] TPC 1", 4000: "EDMA 0"}
    names = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": name}} for tid, name in lanes.items()
    ]
    process = {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "/device:HPU:0"}}

    def row(tid: int, name: str, node: str, event: str, ts: float, dur: float, cat: str) -> dict[str, Any]:
        args = {"EventName": node, "HW event name": event, "recipeId": 60931, "recipeName": "g"}
        more = {"device": 0} if cat == kernel_cat else {}
        where = {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": tid, "ts": ts, "dur": dur}
        return {**where, "args": {**args, **more}}

    halt = "TPC_SPU_START_TO_SPU_HALT"
    return [
        row(
            6000, "BatchGemm", "layers/1/self_attn/matmul_qk/batch_gemm/4", "MMEH_WB0_MON_TS_BIT1", 100, 10, kernel_cat
        ),
        row(7000, "softmax_fwd_bf16", "layers/1/self_attn/softmax/5", halt, 106, 8, kernel_cat),
        row(7001, "softmax_fwd_bf16", "layers/1/self_attn/softmax/5", halt, 107, 9, kernel_cat),
        row(4000, "DmaTranspose", "layers/1/self_attn/transpose/6", "DBG_DMA_TRC_WR_DATA_LAST", 116, 3, dma_cat),
        row(7000, "marker", "layers/1/self_attn/softmax/5", "TPC_SPU_START", 106, 1, kernel_cat),
        host("LaunchRecipe", "privateuse1_runtime", 90, 4),
        # Python threads may be filed under the device's process.
        {**host("threading.py(1): run", "python_function", 0, 500), "pid": 0, "tid": 0},
        *names,
        process,
    ]
