"""Export for optimum-habana: one argument list and one generation config per prefill that was tuned.

Its text generation runs one shape per process, so every bucket gets options of its own. What no option says is told
with its reason. A decode is exported with the prefill of the same batch that it can follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlap import __version__
from overlap.serve.export.choose import Shape, shapes_of
from overlap.serve.export.doubts import common
from overlap.serve.export.make import refuse
from overlap.serve.export.optimum_choose import FULL, FUSED, PLAIN_BF16, Way, choose, family_of
from overlap.serve.export.optimum_flags import FAST, flags, generation_of, source, words_of
from overlap.serve.export.optimum_reasons import reasons_of
from overlap.serve.export.optimum_rules import check_arguments
from overlap.serve.export.plan import Option, Source
from overlap.serve.export.server import COMPILE, LAZY, mode_of
from overlap.serve.tuned import Strict, Tuned, TunedDevice
from overlap.split import Split
from overlap.workload import Bucket, ModelShape

SCHEMA = "overlap.export-optimum/1"


class Record(Strict, frozen=True, kw_only=True):
    """One process: options, fields, and what of the kept split they say."""

    bucket: Bucket
    arguments: dict[str, str]
    generation: dict[str, object]
    environment: dict[str, str]
    kept: Split
    kept_us: float
    option: Option
    decode: Bucket | None
    decode_option: Option | None
    reasons: list[str]

    @property
    def name(self) -> str:
        """Of its folder: `prefill_1x2048+0`."""
        return str(self.bucket).replace(" ", "_")


class OptimumExport(Strict, frozen=True, kw_only=True):
    """All records, and what an operator must know of them."""

    schema: str
    source: Source
    model: ModelShape
    family: str
    tensor_parallel: int
    device: TunedDevice
    mode: str
    rules: str
    serve: str
    records: list[Record]
    left_out: list[str]
    warnings: list[str]


def make_records(tuned: Tuned, origin: tuple[str, str, str], mode: str = "", model: str = "") -> OptimumExport:
    """What is exported of a tuned config; `origin` is the file's name, its hash and the date.

    Raises:
        TunedError: it has no entries, or was tuned on what nobody knows.
        ConfigError: a mode that there is not.
    """
    refuse(tuned, mode, model)
    mode = mode or mode_of(tuned.device.software)
    family = family_of(tuned.model)
    shapes = shapes_of(tuned)
    prompts = [shape for shape in shapes if _is_prompt(shape)]
    records = [_record(shape, _following(shape, shapes), tuned, mode, model) for shape in prompts]
    return OptimumExport(
        schema=SCHEMA,
        source=Source(file=origin[0], sha256=origin[1], date=origin[2], overlap=__version__),
        model=tuned.model,
        family=family,
        tensor_parallel=tuned.tensor_parallel,
        device=tuned.device,
        mode=mode,
        rules=source(),
        serve=model or "MODEL",
        records=records,
        left_out=list(_left_out(shapes, records)),
        warnings=list(_warnings(tuned, family, mode)),
    )


def _is_prompt(shape: Shape) -> bool:
    return shape.entry.bucket.phase == "prefill" and not shape.entry.bucket.context


def _following(prompt: Shape, shapes: Sequence[Shape]) -> Shape | None:
    """The decode after a prompt: the same batch, and the least context that holds it."""
    bucket = prompt.entry.bucket
    able = [
        one
        for one in shapes
        if one.entry.bucket.phase == "decode"
        and one.entry.bucket.batch == bucket.batch
        and one.entry.bucket.context >= bucket.query
    ]
    return min(able, key=lambda one: one.entry.bucket.context, default=None)


def _record(shape: Shape, after: Shape | None, tuned: Tuned, mode: str, model: str) -> Record:
    family, entry = family_of(tuned.model), shape.entry
    way, option = choose(shape, family, mode)
    decode_way, decode_option = (Way(), None) if after is None else choose(after, family, mode, way)
    arguments = dict(_arguments(shape, way, decode_way.parts, tuned, mode, model))
    errors = check_arguments(words_of(arguments), tuned.tensor_parallel, mode == LAZY, family)
    if any(one.severity == "error" for one in errors):
        raise AssertionError(f"the exporter wrote what its own rules refuse: {errors}")
    return Record(
        bucket=entry.bucket,
        arguments=arguments,
        generation=generation_of(arguments),
        environment={"PT_HPU_LAZY_MODE": "1" if mode == LAZY else "0"},
        kept=entry.split,
        kept_us=entry.latency_us.median,
        option=option,
        decode=None if after is None else after.entry.bucket,
        decode_option=decode_option,
        reasons=list(reasons_of(shape, option, family)),
    )


def _arguments(
    shape: Shape, way: Way, decode_parts: int, tuned: Tuned, mode: str, model: str
) -> Iterator[tuple[str, str]]:
    bucket, family = shape.entry.bucket, family_of(tuned.model)
    yield "--model_name_or_path", model or "MODEL"
    yield from (("--bf16", ""), ("--use_kv_cache", ""))
    yield from (("--batch_size", str(bucket.batch)), ("--max_input_tokens", str(bucket.query)))
    split = max(way.parts, decode_parts) > 1
    if not split and family in flags()["--reuse_cache"].models:
        yield "--reuse_cache", ""
    if way.attention in (FUSED, FULL):
        yield from _flash(way, tuned)
    if way.attention == PLAIN_BF16:
        yield "--attn_softmax_bf16", ""
    if way.parts > 1:
        yield "--attn_batch_split", str(way.parts)
    if decode_parts > 1:
        yield "--decode_attn_batch_split", str(decode_parts)
    if mode == COMPILE:
        yield "--torch_compile", ""
        yield from ([("--regional_compile", "")] if way.layers else [])
    else:
        yield "--use_hpu_graphs", ""
    if tuned.tensor_parallel > 1:
        yield "--parallel_strategy", "tp"


def _flash(way: Way, tuned: Tuned) -> Iterator[tuple[str, str]]:
    software = tuned.device.software
    yield "--use_flash_attention", ""
    if software.get("hpu.recompute", "True") == "True":
        yield "--flash_attention_recompute", ""
    if way.attention == FUSED:
        yield "--flash_attention_causal_mask", ""
    modelled = tuned.device.kind.startswith("gaudi") and software.get("gaudi.fast_fused_softmax", "True") == "True"
    if family_of(tuned.model) == "qwen2" or not (modelled or software.get("hpu.softmax_mode") == "fast"):
        yield FAST, "false"


def _left_out(shapes: Sequence[Shape], records: Sequence[Record]) -> Iterator[str]:
    """Reasons, each with its buckets."""
    followed = {record.decode for record in records}
    buckets = [shape.entry.bucket for shape in shapes]
    prefix = [str(one) for one in buckets if one.phase == "prefill" and one.context]
    alone = [str(one) for one in buckets if one.phase == "decode" and one not in followed]
    if prefix:
        yield f"no prompt has a prefix there: {', '.join(prefix)}"
    if alone:
        yield f"decodes that follow no prompt of the config next: {', '.join(alone)}"


def _warnings(tuned: Tuned, family: str, mode: str) -> Iterator[str]:
    if not family:
        yield f"the family of {tuned.model.name} is not known: options that only some models have are left out"
    if not any(entry.bucket.phase == "prefill" and not entry.bucket.context for entry in tuned.entries):
        yield "no prompt without a prefix was tuned, so there is no argument list"
    yield from common(tuned, mode)
