"""Whether the cards hold a whole model: all layers' weights, all layers' KV cache, and one layer's activations.

A window of two layers of a 405B model fits one card, but nobody can serve it there. Embeddings are left out: a
`ModelShape` does not tell the vocabulary.
"""

from __future__ import annotations

from overlap.errors import DeviceError, MemoryLimitError, WorkloadError
from overlap.workload import DTYPE_BYTES, Workload

# Cards of one box; the network between boxes is not modelled.
MOST_CARDS = 8


def model_bytes(workload: Workload) -> int:
    """Bytes that one card must hold."""
    shape, bucket = workload.shard, workload.bucket
    itemsize = DTYPE_BYTES[shape.dtype]
    query, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * query + 2 * keys) + 3 * shape.hidden * shape.ffn + 2 * shape.hidden
    cache = 2 * bucket.batch * bucket.key_tokens * keys
    tokens = bucket.batch * bucket.query
    activations = tokens * (2 * shape.hidden + 2 * shape.ffn)
    return itemsize * (shape.layers * (layer + cache) + activations)


def require_capacity(workload: Workload, memory_bytes: int, chip: str) -> None:
    """Refuse a model that does not fit.

    Raises:
        MemoryLimitError: with the bytes needed and available, and the tensor-parallel degree that would fit.
    """
    if workload.tensor_parallel > MOST_CARDS:
        raise DeviceError(
            f"tensor_parallel={workload.tensor_parallel}: a box has {MOST_CARDS} cards",
            "the network between boxes is not modelled",
        )
    need = model_bytes(workload)
    if need <= memory_bytes:
        return
    fits = next((degree for degree in _degrees(workload) if _bytes_at(workload, degree) <= memory_bytes), None)
    none = f"no tensor_parallel up to {MOST_CARDS} would do: a smaller batch, context or model"
    hint = f"workload.tensor_parallel={fits} would fit" if fits else none
    raise MemoryLimitError(
        f"{workload.model.name} {workload.bucket} needs {need:,} bytes per card at "
        f"tensor_parallel={workload.tensor_parallel}, {chip} has {memory_bytes:,}",
        hint,
    )


def _degrees(workload: Workload) -> list[int]:
    degree, found = workload.tensor_parallel * 2, []
    while degree <= MOST_CARDS:
        found.append(degree)
        degree *= 2
    return found


def _bytes_at(workload: Workload, degree: int) -> float:
    try:
        return model_bytes(Workload(workload.model, workload.bucket, degree, workload.window_layers))
    except WorkloadError:
        return float("inf")
