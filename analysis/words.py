"""A split in words, for people who do not know the names of its axes."""

from __future__ import annotations

from overlap.split import Split, chunk_shape
from overlap.workload import Workload


def split_in_words(split: Split, workload: Workload) -> list[str]:
    """One sentence per axis that differs from the baseline; a single one for the baseline itself."""
    if split == Split():
        return ["Nothing is split: every op works on whole tensors, in the order in which the model is written."]
    found = [*_chunks(split, workload), *_attention(split), *_rest(split)]
    return found


def _chunks(split: Split, workload: Workload) -> list[str]:
    if split.chunks == 1:
        return []
    batch, query = chunk_shape(split, workload)
    what = f"{query} query tokens" if split.chunk_axis == "query" else f"{batch} sequences"
    whole = workload.bucket.query if split.chunk_axis == "query" else workload.bucket.batch
    unit = "query tokens" if split.chunk_axis == "query" else "sequences"
    found = [f"The {whole} {unit} travel through the layers as {split.chunks} chunks of {what}."]
    if split.lag:
        turns = split.turn if split.lag == 1 else f"{split.turn}s"
        found.append(f"In program order each chunk trails the one before it by {split.lag} {turns}.")
    if split.turn == "block":
        found.append(
            "A turn of a chunk is all of its attention block, or its MLP; what an MLP adds to the hidden states is "
            "added at the beginning of the chunk's next turn."
        )
    if split.attend == "whole":
        found.append("Attention waits for all chunks of a layer and is computed once for all of them.")
    return found


def _attention(split: Split) -> list[str]:
    found = []
    if split.head_groups > 1:
        found.append(f"The heads of an attention are computed in {split.head_groups} groups.")
    if split.query_tile:
        found.append(f"A softmax covers {split.query_tile} query tokens at a time.")
    if split.kv_tile:
        what = "A slice of the fused attention" if split.fused_sdpa else "It"
        found.append(f"{what} covers {split.kv_tile} key tokens at a time, merged by the online softmax.")
    if split.masked_blocks == "skip":
        found.append("Scores that the causal mask would hide are not computed.")
    if split.normalise == "after":
        found.append("Rows are divided by their sum after PV, so PV need not wait for the sum.")
    if split.softmax == "fast":
        found.append("The softmax is computed in the dtype of the model, not in fp32.")
    if split.fused_sdpa:
        found.append("Attention is the fused op of the device.")
    return found


def _rest(split: Split) -> list[str]:
    found = []
    if split.projections == "split":
        found.append("Q, K, V and gate, up are GEMMs of their own, so vector work can begin after the first of them.")
    if split.layers_per_graph:
        layers = "layer" if split.layers_per_graph == 1 else "layers"
        found.append(f"Every {split.layers_per_graph} {layers} make a graph of their own, with a fence between graphs.")
    return found


def order_in_words(order: str) -> str:
    """What an order means."""
    if order == "list":
        return "Ops enter the queues by list scheduling: a free engine takes the ready op that is most urgent."
    if order == "searched":
        return "Ops enter the queues in an order that was searched for this program; profile.json holds it."
    return "Ops enter the queues in program order."
