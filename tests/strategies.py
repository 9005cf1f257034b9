"""Hypothesis strategies: small workloads, and splits that fit them."""

from __future__ import annotations

from hypothesis import strategies as st

from overlap.split import TURNS, Split, chunk_shape
from overlap.workload import Bucket, ModelShape, Workload


def divisors(number: int) -> list[int]:
    """Divisors, ascending."""
    return [one for one in range(1, number + 1) if number % one == 0]


@st.composite
def workloads(draw: st.DrawFn, most_query: int = 12, dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> Workload:
    """A tiny model and bucket."""
    kv_heads, group = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 3]))
    head_dim = draw(st.sampled_from([2, 4, 8]))
    shape = ModelShape(
        name="tiny",
        hidden=draw(st.sampled_from([16, 24])),
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=draw(st.sampled_from([16, 40])),
        layers=4,
        qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        dtype=draw(st.sampled_from(dtypes)),
    )
    decode = draw(st.booleans())
    bucket = Bucket(
        phase="decode" if decode else "prefill",
        batch=draw(st.sampled_from([1, 2, 4])),
        query=1 if decode else draw(st.integers(1, most_query)),
        context=draw(st.integers(1 if decode else 0, 5)),
    )
    return Workload(shape, bucket, window_layers=draw(st.integers(1, 3)))


@st.composite
def splits_of(draw: st.DrawFn, workload: Workload) -> Split:
    """Any split that keeps the rules on `workload`."""
    axis = draw(st.sampled_from(["query", "batch"]))
    chunks = draw(st.sampled_from(divisors(workload.bucket.batch if axis == "batch" else workload.bucket.query)))
    turn = draw(st.sampled_from(["stage", "stage", "block"]))
    whole = turn == "stage" and draw(st.integers(0, 3)) == 0
    query = workload.bucket.query if whole else chunk_shape(Split(chunks=chunks, chunk_axis=axis), workload)[1]
    fused = draw(st.integers(0, 4)) == 0
    slices = draw(st.integers(0, workload.bucket.key_tokens))
    masked = "skip" if fused and slices else draw(st.sampled_from(["compute", "skip"]))
    return Split(
        chunks=chunks,
        chunk_axis=axis,
        lag=0 if whole else draw(st.integers(0, len(TURNS[turn]) * workload.window_layers)),
        turn=turn,
        attend="whole" if whole else "chunk",
        head_groups=draw(st.sampled_from(divisors(workload.shard.kv_heads))),
        query_tile=draw(st.sampled_from([0, *divisors(query)])),
        kv_tile=slices,
        masked_blocks=masked,
        normalise="before" if fused else draw(st.sampled_from(["before", "after"])),
        softmax="exact" if fused else draw(st.sampled_from(["exact", "fast"])),
        projections=draw(st.sampled_from(["fused", "split"])),
        fused_sdpa=fused,
        layers_per_graph=draw(st.integers(0, workload.window_layers)),
    )
