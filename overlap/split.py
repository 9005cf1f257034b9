"""The search space: one `Split` is one way to cut the attention block; `AXES` says what each field means and may be.

Terms
    neutral: the value an axis has in the baseline. `Split()` is the baseline.
    chunk: a part of the batch or of the query tokens that travels through all layers on its own.
    stage: one of `STAGES`, the steps of a layer between which chunks may take turns.
    lag: how many stages chunk i+1 trails chunk i in program order. Lag 0 is lockstep: every chunk does a stage before
        any chunk does the next one.
    block: one (query tile × kv tile) rectangle of the score matrix; causal masking makes some of them all masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace

from overlap.errors import SplitError
from overlap.workload import Workload

STAGES = ("qkv", "attn", "out", "mlp")


@dataclass(frozen=True, order=True)
class Split:
    """One point of the search space; every default is the neutral value. Sizes are tokens, 0 means uncut."""

    chunks: int = 1
    chunk_axis: str = "query"
    lag: int = 0
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
    """Meaning, rule and way to serving of one field of `Split`.

    `broken(split, workload)` returns the rule that the value breaks, or an empty string.
    `route` names how a serving stack can be made to do this.
    """

    name: str
    meaning: str
    route: str
    broken: Callable[[Split, Workload], str]


def _one_of(name: str, *values: object) -> Callable[[Split, Workload], str]:
    def broken(split: Split, _: Workload) -> str:
        value = getattr(split, name)
        return "" if value in values else f"{name}={value} is not one of {', '.join(map(str, values))}"

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
    most = len(STAGES) * workload.window_layers
    return "" if 0 <= split.lag <= most else f"lag={split.lag} is outside 0..{most}, the stages of the window"


def _head_groups(split: Split, workload: Workload) -> str:
    kv_heads = workload.shard.kv_heads
    if split.head_groups < 1 or kv_heads % split.head_groups:
        return f"head_groups={split.head_groups} does not divide the {kv_heads} KV heads"
    return ""


def _query_tile(split: Split, workload: Workload) -> str:
    query = chunk_shape(split, workload)[1]
    if split.query_tile < 0 or (split.query_tile and query % split.query_tile):
        return f"query_tile={split.query_tile} does not divide the {query} query tokens of a chunk"
    return ""


def _kv_tile(split: Split, workload: Workload) -> str:
    keys = workload.bucket.key_tokens
    if not 0 <= split.kv_tile <= keys:
        return f"kv_tile={split.kv_tile} is outside 0..{keys}, the tokens to attend to"
    return ""


def _fused_sdpa(split: Split, _: Workload) -> str:
    if split.fused_sdpa and (split.kv_tile or split.normalise != "before" or split.softmax != "exact"):
        return "fused_sdpa=true replaces the softmax: kv_tile, normalise and softmax must keep their neutral values"
    return ""


def _layers_per_graph(split: Split, workload: Workload) -> str:
    window = workload.window_layers
    if not 0 <= split.layers_per_graph <= window:
        return f"layers_per_graph={split.layers_per_graph} is outside 0..{window}, the layers of the window"
    return ""


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("chunk_axis", "what a chunk is cut along", "plug-in class", _one_of("chunk_axis", "query", "batch")),
        Axis("chunks", "parts that travel through all layers on their own", "plug-in class", _chunks),
        Axis("lag", "stages that chunk i+1 trails chunk i in program order", "plug-in class", _lag),
        Axis("head_groups", "groups of KV heads whose attention is computed apart", "plug-in class", _head_groups),
        Axis("query_tile", "query tokens of one softmax", "plug-in class or attention function", _query_tile),
        Axis(
            "kv_tile", "key tokens of one softmax, merged online", "sliced fused attention or plug-in class", _kv_tile
        ),
        Axis(
            "masked_blocks",
            "whether blocks above the causal diagonal are computed",
            "plug-in class",
            _one_of("masked_blocks", "compute", "skip"),
        ),
        Axis(
            "normalise",
            "divide by the row sum before or after PV",
            "plug-in class",
            _one_of("normalise", "before", "after"),
        ),
        Axis("softmax", "arithmetic of the softmax", "softmax mode flag", _one_of("softmax", "exact", "fast")),
        Axis(
            "projections",
            "QKV and gate/up as one GEMM or several",
            "plug-in class",
            _one_of("projections", "fused", "split"),
        ),
        Axis("fused_sdpa", "the device's own fused attention as one op", "stack default", _fused_sdpa),
        Axis("layers_per_graph", "layers between two fences, 0 for all", "graph boundary settings", _layers_per_graph),
    )
}


def violations(split: Split, workload: Workload) -> list[str]:
    """Rules that `split` breaks on `workload`; empty if it can run."""
    # A bad chunking makes the rules that build on chunk sizes meaningless, so it is reported alone.
    first = [AXES[name].broken(split, workload) for name in ("chunk_axis", "chunks")]
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
    _, query = chunk_shape(split, workload)
    if split.chunks == 1:
        split = replace(split, chunk_axis="query", lag=0)
    if split.query_tile == query:
        split = replace(split, query_tile=0)
    if split.kv_tile == workload.bucket.key_tokens:
        split = replace(split, kv_tile=0)
    if split.layers_per_graph == workload.window_layers:
        split = replace(split, layers_per_graph=0)
    one_block = split.chunks == 1 or split.chunk_axis == "batch"
    if one_block and not split.query_tile and not split.fused_sdpa:
        split = replace(split, masked_blocks="compute")
    return split


def blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [start, stop) into pieces of `size` (the last may be shorter); `size` 0 leaves it whole."""
    step = size or max(1, stop - start)
    for begin in range(start, stop, step):
        yield begin, min(begin + step, stop)
