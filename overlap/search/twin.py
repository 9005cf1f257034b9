"""A small workload that is cut exactly like a large one: where results are checked if the device computes none.

A model of a device knows no values, and a 405B layer would take this machine's CPU minutes. What can go wrong in a
split (a block left out, a chunk that reads the cache too early, a wrong merge) depends on tokens and tiles, not on
widths, so the twin has few, narrow heads and a narrow MLP; long prompts are shortened, and all sizes in tokens with
them.

Contract: the twin's program has the same ops by name, with the same edges, so that an order of one is an order of the
other.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from overlap.split import Split
from overlap.workload import Workload

HEAD_DIM, HIDDEN, FFN = 32, 128, 128
KV_HEADS, GROUP = 2, 2
# Tokens of a query, and of the context, that the twin has at most where sizes allow.
TOKENS, BATCH = 1024, 4


def twin(workload: Workload, split: Split) -> tuple[Workload, Split]:
    """The twin of `workload` for `split`, and the cut of the twin that corresponds to it."""
    shape, bucket = workload.shard, workload.bucket
    factor = _factor(workload, split)
    kv_heads = max(split.head_groups, gcd(shape.kv_heads, KV_HEADS))
    # Shards have all-reduces, which must be in the twin as well.
    cards = min(workload.tensor_parallel, 2)
    model = replace(
        workload.model,
        name=f"{workload.model.name}, narrow",
        hidden=HIDDEN,
        heads=cards * kv_heads * min(shape.group, GROUP),
        kv_heads=cards * kv_heads,
        head_dim=HEAD_DIM,
        ffn=cards * FFN,
    )
    parts = split.chunks if split.chunk_axis == "batch" else 1
    batch = bucket.batch if bucket.batch <= BATCH else parts * max(1, BATCH // parts)
    query = bucket.query if bucket.phase == "decode" else bucket.query // factor
    small = replace(bucket, batch=batch, query=query, context=bucket.context // factor)
    cut = replace(split, query_tile=split.query_tile // factor, kv_tile=split.kv_tile // factor)
    return Workload(model, small, cards, workload.window_layers), cut


def _factor(workload: Workload, split: Split) -> int:
    """The largest power of two that divides every size in tokens and leaves no fewer tokens than are wanted."""
    bucket = workload.bucket
    sizes = [bucket.context, split.query_tile, split.kv_tile]
    if bucket.phase == "prefill":
        sizes.append(bucket.query // split.chunks if split.chunk_axis == "query" else bucket.query)
    tokens = bucket.context if bucket.phase == "decode" else bucket.query
    factor = 1
    while tokens // (2 * factor) >= TOKENS and all(size % (2 * factor) == 0 for size in sizes):
        factor *= 2
    return factor
