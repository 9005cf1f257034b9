"""A fused attention as the chains of blocks that the compiler makes of it.

Terms
    block: query tokens x key tokens of `fused_block_tokens` each; blocks above the causal diagonal are left out, those
        on it are computed whole.
    chain: QK^T on the MME, softmax on the TPC, PV on the MME, for one block and some heads: as many as let three
        chains' scores and probabilities lie on the die.

Several chains are in flight, so that the MME works on one while the TPC works on another. Very many chains are put
together, work and fixed costs added up, to keep the simulation short; what is lost is a little of the fill and drain.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from overlap.devices.gaudi.kernels import DTYPES
from overlap.devices.gaudi.machine import Machine
from overlap.devices.gaudi.mme import cost as mme_cost
from overlap.devices.gaudi.mme.problem import Gemm
from overlap.program import Kernel

# Chains of one op that are simulated apart.
MOST_CHAINS = 24


class Chain(NamedTuple):
    """Times of the three nodes of a chain, the die bytes of each, and how many real chains it stands for."""

    qk_ns: float
    softmax_ns: float
    pv_ns: float
    die_bytes: float
    merged: int


class FusedAttention(NamedTuple):
    """Sizes of one fused attention: `heads` are query heads times the batch, `masked` has a bias."""

    heads: int
    query: int
    keys: int
    head_dim: int
    causal: bool
    masked: bool
    fast: bool
    dtype: str
    itemsize: int


def attention_of(kernel: Kernel, fast: bool = False) -> FusedAttention:
    """Sizes of the op from the shapes that its call saw: query [B, K, T, G, D], key [B, K, S, D]."""
    call = kernel.work[0]
    query, key = call.given[0], call.given[1]
    batch, kv_heads, tokens, group, head_dim = query.size
    # A partial attention has no causal mode.
    causal = len(kernel.calls[0].args) > 4 and bool(kernel.calls[0].args[4])
    return FusedAttention(
        batch * kv_heads * group,
        tokens,
        key.size[2],
        head_dim,
        causal,
        kernel.calls[0].args[3] is not None,
        fast,
        DTYPES[query.dtype],
        query.dtype.itemsize,
    )


def make_chains(machine: Machine, attention: FusedAttention, in_flight: int) -> list[Chain]:
    """All chains of one fused attention, equal ones put together where there are too many."""
    rules = machine.compiler
    # Short prompts are not cut.
    block = rules.fused_block_tokens if attention.query >= rules.fused_block_from_tokens else attention.keys
    rows, columns = min(block, attention.query), min(block, attention.keys)
    blocks = count_blocks(attention, rows, columns)
    heads = _heads_per_chain(machine, attention, rows, columns, in_flight)
    groups = ceil(attention.heads / heads)
    chain = _chain(machine, attention, heads, rows, columns)
    total = blocks * groups
    made = min(total, MOST_CHAINS)
    counts = [total * (i + 1) // made - total * i // made for i in range(made)]
    # The last blocks of rows and columns, and the last group of heads, may be smaller: scale to the scores there are.
    scale = attention.heads * count_scores(attention, rows, columns) / (groups * heads * blocks * rows * columns)
    return [_merged(chain, count, scale) for count in counts]


def _merged(chain: Chain, count: int, scale: float) -> Chain:
    """`count` chains one after the other."""
    times = count * scale
    return Chain(chain.qk_ns * times, chain.softmax_ns * times, chain.pv_ns * times, chain.die_bytes * times, count)


def count_blocks(attention: FusedAttention, rows: int, columns: int) -> int:
    """Blocks that have a score to compute."""
    across = ceil(attention.keys / columns)
    if not attention.causal:
        return ceil(attention.query / rows) * across
    before = attention.keys - attention.query
    ends = (min(start + rows, attention.query) + before for start in range(0, attention.query, rows))
    return sum(ceil(end / columns) for end in ends)


def count_scores(attention: FusedAttention, rows: int, columns: int) -> int:
    """Scores of one head that are computed: whole blocks, the last ones as far as there are tokens."""
    if not attention.causal:
        return attention.query * attention.keys
    before = attention.keys - attention.query
    total = 0
    for start in range(0, attention.query, rows):
        end = min(start + rows, attention.query)
        total += (end - start) * min(ceil((end + before) / columns) * columns, attention.keys)
    return total


def _heads_per_chain(machine: Machine, attention: FusedAttention, rows: int, columns: int, in_flight: int) -> int:
    """Heads whose scores and probabilities fit the die for every chain in flight; at least one."""
    each = 2 * rows * columns * attention.itemsize
    fit = machine.memory.die_bytes // (in_flight * each)
    return max(1, min(attention.heads, fit))


def _chain(machine: Machine, attention: FusedAttention, heads: int, rows: int, columns: int) -> Chain:
    dtype, head_dim = attention.dtype, attention.head_dim
    scores = heads * rows * columns
    vectors = scores * attention.itemsize / machine.tpc.vector_bytes
    tpc = machine.tpc
    per_vector = tpc.fused_fast_softmax_cycles if attention.fast else tpc.fused_softmax_cycles
    if attention.masked:
        per_vector *= tpc.fused_mask_slowdown
    softmax_ns = vectors * per_vector * 1e3 / tpc.clock_mhz / min(tpc.cores, heads * rows)
    qk = Gemm(dtype, "abt", rows, columns, head_dim, (heads,))
    pv = Gemm(dtype, "ab", rows, head_dim, columns, (heads,))
    times = [mme_cost(machine.mme, one).hw_ns / machine.gemm.efficiency for one in (qk, pv)]
    return Chain(times[0], softmax_ns, times[1], 4.0 * scores * attention.itemsize, 1)
