"""A predictor by simple arithmetic: flops over a peak plus bytes over a bandwidth, so that tests know every answer."""

from __future__ import annotations

from overlap.devices.gaudi.validation.predictor import Stack
from overlap.errors import MemoryLimitError
from overlap.workload import Bucket, ModelShape

FLOPS_PER_NS, BYTES_PER_NS = 400e3, 2000.0
LAUNCH_NS = {"eager": 50_000.0, "lazy": 20_000.0, "hpu_graph": 1_000.0, "compile": 5_000.0}


class Roofline:
    """Answers at once; `calls` counts the questions. Models of more than `limit` weights are refused."""

    name = "roofline"
    version = "7"

    def __init__(self, limit: float = 1e13, scale: float = 1.0) -> None:
        self.limit = limit
        self.scale = scale
        self.calls = 0

    def gemm_ns(self, dtype: str, m: int, n: int, k: int, batch: int = 1) -> float:
        self.calls += 1
        width = {"bf16": 2, "fp8": 1, "fp32": 4}[dtype]
        return self.scale * batch * (2 * m * n * k / FLOPS_PER_NS + n * k * width / BYTES_PER_NS)

    def forward_ns(
        self, shape: ModelShape, vocab: int, tied: bool, bucket: Bucket, tensor_parallel: int, stack: Stack
    ) -> float:
        self.calls += 1
        width = shape.heads * shape.head_dim
        weights = shape.layers * (2 * shape.hidden * (width + shape.kv_heads * shape.head_dim))
        weights += shape.layers * 3 * shape.hidden * shape.ffn + vocab * shape.hidden
        if weights > self.limit:
            raise MemoryLimitError("too large for the roofline", "take more cards")
        tokens = bucket.batch * bucket.query
        scores = tokens * bucket.key_tokens * width * shape.layers
        cache = bucket.batch * bucket.key_tokens * 4 * shape.kv_heads * shape.head_dim * shape.layers
        factor = {"plain": 1.0, "fused": 0.5}[stack.attention] if bucket.phase == "prefill" else 1.0
        factor *= {"exact": 1.0, "fast": 0.9}[stack.softmax]
        busy = (2 * weights * tokens + 4 * scores * factor) / FLOPS_PER_NS + (2 * weights + cache) / BYTES_PER_NS
        launch = 0.0 if stack.device_loop else LAUNCH_NS[stack.mode] * shape.layers
        return self.scale * (busy / tensor_parallel + launch)

    def all_reduce_ns(self, nbytes: int, degree: int) -> float:
        self.calls += 1
        return self.scale * (10_000.0 + nbytes * (degree - 1) / degree / 100.0)

    def row_parallel_ns(self, tokens: int, k: int, n: int, degree: int, chunks: int) -> float:
        self.calls += 1
        gemm, reduce = 2 * tokens * k * n / degree / FLOPS_PER_NS, tokens * n * 2 / 100.0
        return self.scale * (max(gemm, reduce) + min(gemm, reduce) / chunks + 200_000.0 * chunks)
