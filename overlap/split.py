"""The search space: one `Split` is one way to cut the attention block; `AXES` says what each field means and may be.

Terms
    neutral: the value an axis has in the baseline. `Split()` is the baseline.
    chunk: a part of the batch or of the query tokens that travels through all layers on its own.
    stage: one of `STAGES`, the steps of a layer between which chunks may take turns.
    turn: what a chunk does before the next chunk has its turn: one stage, or a block of them (`TURNS`).
    lag: how many turns chunk i+1 trails chunk i in program order. Lag 0 is lockstep: every chunk has a turn before any
        chunk has its next one.
    block: one (query tile × kv tile) rectangle of the score matrix; causal masking makes some of them all masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace

from overlap.errors import SplitError
from overlap.workload import Workload

STAGES = ("qkv", "attn", "out", "mlp")
# Stages of one turn. Where a turn is a block, the residual of the MLP is added at the beginning of the chunk's next
# turn, so that nothing of the MLP keeps the next chunk's from beginning.
TURNS = {"stage": tuple((stage,) for stage in STAGES), "block": (("qkv", "attn", "out"), ("mlp",))}
# Values of the axes that have names for them.
CHOICES: dict[str, tuple[str, ...]] = {
    "chunk_axis": ("query", "batch"),
    "turn": tuple(TURNS),
    "attend": ("chunk", "whole"),
    "masked_blocks": ("compute", "skip"),
    "normalise": ("before", "after"),
    "softmax": ("exact", "fast"),
    "projections": ("fused", "split"),
}


@dataclass(frozen=True, order=True)
class Split:
    """One point of the search space; every default is the neutral value. Sizes are tokens, 0 means uncut."""

    chunks: int = 1
    chunk_axis: str = "query"
    lag: int = 0
    turn: str = "stage"
    attend: str = "chunk"
    head_groups: int = 1
    query_tile: int = 0
    kv_tile: int = 0
    masked_blocks: str = "compute"
    normalise: str = "before"
    softmax: str = "exact"
    projections: str = "fused"
    fused_sdpa: bool = False
    layers_per_graph: int = 0

    @property
    def complexity(self) -> int:
        """Axes that differ from the neutral value: the tie-break between equally fast splits."""
        return len(self.changed())

    def changed(self) -> dict[str, object]:
        """Fields that differ from the baseline, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def __str__(self) -> str:
        """`baseline`, or the changed axes: `chunks=4 lag=1 query_tile=256`."""
        return " ".join(f"{name}={value}" for name, value in self.changed().items()) or "baseline"

    def as_dict(self) -> dict[str, bool | int | str]:
        """All fields, for files."""
        return asdict(self)


@dataclass(frozen=True)
class Axis:
    """Meaning, rule, way to serving and effect on memory of one field of `Split`.

    `broken(split, workload)` returns the rule that the value breaks, or an empty string.
    `route` names how a serving stack can be made to do this.
    """

    name: str
    meaning: str
    route: str
    memory: str
    broken: Callable[[Split, Workload], str]


def _choice(name: str) -> Callable[[Split, Workload], str]:
    def broken(split: Split, _: Workload) -> str:
        value = getattr(split, name)
        return "" if value in CHOICES[name] else f"{name}={value} is not one of {', '.join(CHOICES[name])}"

    return broken


def chunk_shape(split: Split, workload: Workload) -> tuple[int, int]:
    """(batch, query) of one chunk."""
    bucket = workload.bucket
    if split.chunk_axis == "batch":
        return bucket.batch // split.chunks, bucket.query
    return bucket.batch, bucket.query // split.chunks


def _chunks(split: Split, workload: Workload) -> str:
    size = workload.bucket.batch if split.chunk_axis == "batch" else workload.bucket.query
    if split.chunks < 1 or size % split.chunks:
        return f"chunks={split.chunks} does not divide the {split.chunk_axis} dimension of {size}"
    return ""


def _lag(split: Split, workload: Workload) -> str:
    most = len(TURNS.get(split.turn, STAGES)) * workload.window_layers
    return "" if 0 <= split.lag <= most else f"lag={split.lag} is outside 0..{most}, the turns of the window"


def _attend(split: Split, workload: Workload) -> str:
    if unknown := _choice("attend")(split, workload):
        return unknown
    if split.attend == "chunk" or split.chunks == 1:
        return ""
    if split.lag or split.turn != "stage":
        return "attend=whole makes all chunks wait for each other in every layer: lag and turn must be neutral"
    return ""


def attended_tokens(split: Split, workload: Workload) -> int:
    """Query tokens that one attention sees."""
    return workload.bucket.query if split.attend == "whole" else chunk_shape(split, workload)[1]


def _head_groups(split: Split, workload: Workload) -> str:
    kv_heads = workload.shard.kv_heads
    if split.head_groups < 1 or kv_heads % split.head_groups:
        return f"head_groups={split.head_groups} does not divide the {kv_heads} KV heads"
    return ""


def _query_tile(split: Split, workload: Workload) -> str:
    query = attended_tokens(split, workload)
    if split.query_tile < 0 or (split.query_tile and query % split.query_tile):
        return f"query_tile={split.query_tile} does not divide the {query} query tokens of an attention"
    return ""


def _kv_tile(split: Split, workload: Workload) -> str:
    keys = workload.bucket.key_tokens
    if not 0 <= split.kv_tile <= keys:
        return f"kv_tile={split.kv_tile} is outside 0..{keys}, the tokens to attend to"
    return ""


def _fused_sdpa(split: Split, _: Workload) -> str:
    if split.fused_sdpa and (split.normalise != "before" or split.softmax != "exact"):
        return "fused_sdpa=true replaces the softmax: normalise and softmax must keep their neutral values"
    if split.fused_sdpa and split.kv_tile and split.masked_blocks != "skip":
        return (
            "fused_sdpa=true with a kv_tile merges slices, of which none may be all masked: masked_blocks must be skip"
        )
    return ""


def _layers_per_graph(split: Split, workload: Workload) -> str:
    window = workload.window_layers
    if not 0 <= split.layers_per_graph <= window:
        return f"layers_per_graph={split.layers_per_graph} is outside 0..{window}, the layers of the window"
    return ""


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            "chunk_axis",
            "what a chunk is cut along",
            "plug-in class; the batch also by attn_batch_split",
            "as chunks",
            _choice("chunk_axis"),
        ),
        Axis(
            "chunks",
            "parts that travel through all layers on their own",
            "plug-in class",
            "activations of a few chunks instead of all; weights are read once per chunk",
            _chunks,
        ),
        Axis("turn", "what a chunk does before the next", "plug-in class", "as lag", _choice("turn")),
        Axis("lag", "turns that chunk i+1 trails chunk i", "plug-in class", "more chunks in flight keep more", _lag),
        Axis(
            "attend",
            "attention per chunk, or once over all chunks of a layer",
            "plug-in class",
            "whole: scores of the whole query at once",
            _attend,
        ),
        Axis(
            "head_groups",
            "groups of KV heads whose attention is computed apart",
            "plug-in class",
            "scores of one group instead of all heads",
            _head_groups,
        ),
        Axis(
            "query_tile",
            "query tokens of one softmax",
            "plug-in class or attention function",
            "scores of one tile instead of the whole query",
            _query_tile,
        ),
        Axis(
            "kv_tile",
            "key tokens of one softmax, merged online",
            "sliced fused attention or plug-in class",
            "scores of one block; an fp32 partial result per slice",
            _kv_tile,
        ),
        Axis(
            "masked_blocks",
            "whether blocks above the causal diagonal are computed",
            "plug-in class",
            "skip: no scores above the diagonal",
            _choice("masked_blocks"),
        ),
        Axis(
            "normalise",
            "divide by the row sum before or after PV",
            "plug-in class",
            "after: row sums are kept until the merge",
            _choice("normalise"),
        ),
        Axis(
            "softmax",
            "arithmetic of the softmax",
            "softmax mode flag",
            "fast: no fp32 copy of the scores",
            _choice("softmax"),
        ),
        Axis(
            "projections",
            "QKV and gate/up as one GEMM or several",
            "plug-in class",
            "none",
            _choice("projections"),
        ),
        Axis(
            "fused_sdpa",
            "the device's own fused attention as one op",
            "stack default",
            "no scores outside of the op",
            _fused_sdpa,
        ),
        Axis(
            "layers_per_graph",
            "layers between two fences, 0 for all",
            "graph boundary settings",
            "larger graphs keep a larger workspace",
            _layers_per_graph,
        ),
    )
}


def violations(split: Split, workload: Workload) -> list[str]:
    """Rules that `split` breaks on `workload`; empty if it can run."""
    # A bad chunking makes the rules that build on chunk sizes meaningless, so it is reported alone.
    first = [AXES[name].broken(split, workload) for name in ("chunk_axis", "chunks", "turn")]
    if any(first):
        return [rule for rule in first if rule]
    return [rule for axis in AXES.values() if (rule := axis.broken(split, workload))]


def check(split: Split, workload: Workload) -> None:
    """Raise `SplitError` with the first rule that `split` breaks."""
    broken = violations(split, workload)
    if broken:
        raise SplitError(broken[0], f"workload: {workload}")


def canonical(split: Split, workload: Workload) -> Split:
    """The simplest split that does the same work in the same program order, so that equal candidates compare equal."""
    if split.chunks == 1:
        split = replace(split, chunk_axis="query", lag=0, turn="stage", attend="chunk")
    if split.query_tile == attended_tokens(split, workload):
        split = replace(split, query_tile=0)
    split = replace(split, kv_tile=_kv_tile_that_counts(split, workload))
    if split.layers_per_graph == workload.window_layers:
        split = replace(split, layers_per_graph=0)
    one_block = split.chunks == 1 or split.chunk_axis == "batch" or split.attend == "whole"
    if one_block and not split.query_tile and not split.fused_sdpa:
        split = replace(split, masked_blocks="compute")
    return split


def _kv_tile_that_counts(split: Split, workload: Workload) -> int:
    """The smallest kv tile that cuts as `split.kv_tile` does, 0 if that cuts nothing.

    Slices of a fused attention end where the diagonal begins, so none is longer than what lies before the last tile.
    """
    keys = workload.bucket.key_tokens
    if split.fused_sdpa and workload.bucket.phase == "prefill":
        return min(split.kv_tile, keys - (split.query_tile or attended_tokens(split, workload)))
    return 0 if split.kv_tile == keys else split.kv_tile


def blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into pieces of `size` (the last may be shorter); `size` 0 leaves it whole."""
    step = size or max(1, stop - start)
    for begin in range(start, stop, step):
        yield begin, min(begin + step, stop)
