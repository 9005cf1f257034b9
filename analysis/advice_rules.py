"""The rules of the advice: each looks at one kind of lost time and says how much of it there is.

Terms
    draft: an advice before its saving is cut to what the window allows (`overlap.analysis.advice`).
    knob: an axis of `overlap.split.Split` where there is one, and what serving stacks call it.

To add a rule, write a function from `Findings` to drafts and name it in `RULES`. A rule yields nothing where it found
nothing; it never guesses a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from overlap.analysis.numbers import counted, time_text
from overlap.analysis.partition import IDLE, Partition

EXAMPLES = 3
SOFTMAX = r"(?i)softmax"
COPY = r"(?i)transpose|memcpy|permute|\bcopy|_copy|contiguous|strided_insert|concat"
_CORES = {"MME", "TPC", "FUSED"}


@dataclass(frozen=True)
class Findings:
    """What the rules look at; parts that are None are passed over.

    Args:
        partition: of the window.
        ops: an `op_table`; with a column `attention_phase` (softmax, copy, …) where that is known, which is used
            instead of guesses from names.
        gaps: `length_ns` and `size` (micro | macro) of each stretch without a busy engine; `before` and `after` name
            the ops around it where they are there.
        lane_use: see `overlap.analysis.lane_use`.
        host_ns: time of the host by what it did, such as `Compile Time`.
    """

    partition: Partition
    ops: pl.DataFrame
    gaps: pl.DataFrame | None = None
    lane_use: pl.DataFrame | None = None
    host_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """An advice before its limit; `less_work_on` names the engine whose work it makes shorter, if it does."""

    title: str
    saves_ns: int
    evidence: tuple[str, ...]
    knob: str
    caveat: str
    less_work_on: str = ""


def side_by_side(found: Findings) -> Iterator[Draft]:
    """Exposed TPC could run beside exposed MME."""
    part = found.partition
    saves = min(part.exposed_mme_ns, part.exposed_tpc_ns)
    times = f"exposed MME {time_text(part.exposed_mme_ns)}, exposed TPC {time_text(part.exposed_tpc_ns)}"
    yield Draft(
        "Run vector work beside matrix work",
        saves,
        (times, *_examples(found.ops.filter(engine="TPC")), *_examples(found.ops.filter(engine="MME"), 1)),
        "split.chunks, split.chunk_axis and split.lag; the order of the queues",
        "Only ops that do not need each other can share time; chunks add launches and may lose tiling.",
    )


def softmax(found: Findings) -> Iterator[Draft]:
    """Exposed softmax could be cheaper or inside a fused kernel."""
    ops = _of_phase(found.ops.filter(engine="TPC"), "softmax", SOFTMAX)
    yield Draft(
        "Make the softmax cheaper",
        min(int(ops["exposed_ns"].sum()), found.partition.exposed_tpc_ns),
        _examples(ops),
        "split.softmax=fast, split.normalise=after, split.masked_blocks=skip, split.fused_sdpa=true",
        "A softmax never becomes free; fast works in the model's dtype, so check the error.",
        less_work_on="TPC",
    )


def host_gaps(found: Findings) -> Iterator[Draft]:
    """The device waits for the host in macro gaps, between ops in micro gaps."""
    macro, micro = _gaps(found, "macro"), _gaps(found, "micro")
    yield Draft(
        "Keep the device fed by the host",
        *macro,
        "HPU or CUDA graphs, or larger ones; a warm-up of every bucket; fewer synchronisations",
        "A long gap may also be a wait for data, for another rank or for the profiler itself.",
    )
    yield Draft(
        "Close the small gaps between ops",
        *micro,
        "larger split.layers_per_graph (0: one graph; vLLM: VLLM_CONFIG_HIDDEN_LAYERS); fewer, fused ops",
        "Some of it is launch time that a device needs for every op; recording can lengthen it.",
    )


def _gaps(found: Findings, size: str) -> tuple[int, tuple[str, ...]]:
    """(total, evidence) of the gaps of one size."""
    if found.gaps is None:
        return 0, ()
    gaps = found.gaps.filter(size=size).sort("length_ns", descending=True)
    if gaps.is_empty():
        return 0, ()
    total, longest = int(gaps["length_ns"].sum()), gaps.row(0, named=True)
    evidence = [f"{counted(gaps.height, f'{size} gap')}, {time_text(total)} in all"]
    between = ""
    if longest.get("before") or longest.get("after"):
        between = f", from `{longest.get('before') or 'the start'}` to `{longest.get('after') or 'the end'}`"
    evidence.append(f"longest {time_text(longest['length_ns'])}{between}")
    return min(total, found.partition.idle_ns), tuple(evidence)


def host_work(found: Findings) -> Iterator[Draft]:
    """What the host did while the device may have waited; both advices are limited by the idle time."""
    texts = {
        "Compile Time": (
            "Compile graphs before they are needed",
            "warm-up of every bucket; static shapes; a recipe cache on disk",
            "Compilation may run beside the device; then it costs nothing.",
        ),
        "DataLoader": (
            "Load data ahead of the device",
            "more workers of the data loader, pinned memory, non-blocking copies",
            "Only loading that the device waits for costs time.",
        ),
    }
    for name, (title, knob, caveat) in texts.items():
        spent, idle = found.host_ns.get(name, 0), found.partition.idle_ns
        evidence = (f"host {time_text(spent)}", f"device idle {time_text(idle)}")
        yield Draft(title, min(spent, idle), evidence, knob, caveat)


def exposed_dma(found: Findings) -> Iterator[Draft]:
    """Copies that nothing hides: by the DMA engines, and as kernels on a compute engine."""
    yield Draft(
        "Hide or avoid the copies of the DMA",
        _without_compute(found.partition, "DMA"),
        _examples(found.ops.filter(engine="DMA")),
        "layouts that need no transpose; split.chunks, so that copies run beside compute; inputs kept on the device",
        "Copies that feed the next op cannot all be hidden.",
    )
    for engine, exposed in (("TPC", found.partition.exposed_tpc_ns), ("MME", found.partition.exposed_mme_ns)):
        copies = _of_phase(found.ops.filter(engine=engine), "copy", COPY)
        yield Draft(
            f"Avoid copies that run on the {engine}",
            min(int(copies["exposed_ns"].sum()), exposed),
            _examples(copies),
            "layouts that need no transpose or concatenation; a larger split.query_tile, fewer split.head_groups",
            "Some layouts are asked for by the next kernel; then the copy moves instead of going away.",
            less_work_on=engine,
        )


def exposed_nic(found: Findings) -> Iterator[Draft]:
    """Collectives that no compute hides."""
    yield Draft(
        "Hide the network behind compute",
        _without_compute(found.partition, "NIC"),
        _examples(found.ops.filter(engine="NIC")),
        "split.chunk_axis=batch with split.chunks of 2 or more (optimum-habana: attn_batch_split; "
        "vLLM: VLLM_ROW_PARALLEL_CHUNKS)",
        "Part of a collective may be a wait for a slower rank; chunks make messages smaller.",
    )


def lanes(found: Findings) -> Iterator[Draft]:
    """Ops that leave lanes of their engine empty."""
    if found.lane_use is None:
        return
    spare = found.lane_use.filter(pl.col("spare_ns") > 0).with_columns(
        pl.min_horizontal("spare_ns", "exposed_ns").alias("saves_ns")
    )
    for (engine,), group in sorted(spare.partition_by("engine", as_dict=True).items()):
        worst = group.sort("saves_ns", "kind", descending=[True, False]).head(EXAMPLES)
        evidence = tuple(
            f"`{row['kind']}`: {row['mean_lanes']:.1f} of {row['lanes']} lanes on average over "
            f"{time_text(row['duration_ns'])}"
            for row in worst.iter_rows(named=True)
        )
        yield Draft(
            f"Fill the lanes of the {engine}",
            int(worst["saves_ns"].sum()),
            evidence,
            "larger tensors per op (fewer split.chunks, larger split.query_tile); the index space of custom kernels",
            "Assumes that work divides evenly over all lanes and that memory keeps up.",
            less_work_on=str(engine),
        )


RULES: tuple[Callable[[Findings], Iterator[Draft]], ...] = (
    side_by_side,
    softmax,
    host_gaps,
    host_work,
    exposed_dma,
    exposed_nic,
    lanes,
)


def _of_phase(ops: pl.DataFrame, phase: str, pattern: str) -> pl.DataFrame:
    """Ops of an attention phase; by name and kind where the table does not say."""
    if "attention_phase" in ops.columns:
        return ops.filter(attention_phase=phase)
    return ops.filter(pl.col("name").str.contains(pattern) | pl.col("kind").str.contains(pattern))


def _examples(ops: pl.DataFrame, most: int = EXAMPLES) -> tuple[str, ...]:
    """The kinds with the most exposed time, in words."""
    kind = pl.when(pl.col("kind") == "").then("name").otherwise("kind").alias("kind")
    kinds = (
        ops.group_by(kind, "engine")
        .agg(pl.len().alias("ops"), pl.col("exposed_ns").sum())
        .filter(pl.col("exposed_ns") > 0)
        .sort("exposed_ns", "kind", descending=[True, False])
        .head(most)
    )
    return tuple(
        f"`{row['kind']}` on {row['engine']}: {time_text(row['exposed_ns'])} exposed in {counted(row['ops'], 'op')}"
        for row in kinds.iter_rows(named=True)
    )


def _without_compute(part: Partition, engine: str) -> int:
    """Time during which `engine` was busy and no compute engine was."""
    busy = ((key.split("+"), time_ns) for key, time_ns in part.parts_ns.items() if key != IDLE)
    return sum(time_ns for engines, time_ns in busy if engine in engines and not _CORES & set(engines))
