"""From a tuned config to the plan of an export for vLLM on Gaudi."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from overlap import __version__
from overlap.errors import ConfigError, TunedError
from overlap.presets import shape_from_hf
from overlap.serve.export.choose import Choice, Shape, choose0, choose1, gains, shapes_of
from overlap.serve.export.costs import costs_of, over_stack
from overlap.serve.export.doubts import common, of_vllm, plugin_obstacle
from overlap.serve.export.environment import flags_of, settings_of, wants_fp32
from overlap.serve.export.limits import limits_of, line_of, served
from overlap.serve.export.plan import SCHEMA, Level, Limits, Option, Plan, Planned, Source
from overlap.serve.export.routes import route
from overlap.serve.export.served import reduced
from overlap.serve.export.server import MODES, mode_of
from overlap.serve.export.times import stack_us
from overlap.serve.export.vllm import Bundle
from overlap.serve.export.words import MODEL
from overlap.serve.lookup import shape_hash
from overlap.serve.tuned import Tuned
from overlap.serve.vllm.settings import source as rules_source
from overlap.similar import did_you_mean

BLOCK_SIZE = 128
KINDS = ("hpu", "gaudi2", "gaudi3", "host")


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; empty or 0 where it follows from the tuned config."""

    mode: str = ""
    model: str = ""
    block_size: int = BLOCK_SIZE
    max_model_len: int = 0
    max_num_batched_tokens: int = 0
    max_num_seqs: int = 0


def make_bundle(tuned: Tuned, source: tuple[str, str, str], wishes: Wishes) -> Bundle:
    """The plan of an export; `source` is the file's name, its hash and the date.

    Raises:
        TunedError: it has no entries, or was tuned on what nobody knows.
        ConfigError: a wish that cannot be.
    """
    refuse(tuned, wishes.mode, wishes.model)
    mode = wishes.mode or mode_of(tuned.device.software)
    buckets = [entry.bucket for entry in tuned.entries]
    limits = limits_of(buckets, wishes.block_size, _given(wishes))
    shapes = shapes_of(tuned)
    block = limits.block_size
    lower = choose0(shapes, mode, block, wants_fp32(tuned.model))
    upper = choose1(shapes, mode, block)
    both = [lower, upper] if gains(upper, lower) and not plugin_obstacle(tuned) else [lower]
    plan = Plan(
        schema=SCHEMA,
        target="vllm",
        source=Source(file=source[0], sha256=source[1], date=source[2], overlap=__version__),
        model=tuned.model,
        serve=wishes.model or MODEL,
        tensor_parallel=tuned.tensor_parallel,
        window_layers=tuned.window_layers,
        device=tuned.device,
        mode=mode,
        rules=rules_source(),
        limits=limits,
        entries=_planned(shapes, both, mode, block),
        levels=[_level(number, tuned, one, shapes, mode, limits) for number, one in enumerate(both)],
        warnings=[*common(tuned, mode), *of_vllm(tuned, block)],
    )
    return Bundle(plan, reduced(tuned, upper.options, block) if len(both) > 1 else None)


def refuse(tuned: Tuned, mode: str, model: str) -> None:
    """Raise what no export can be made of."""
    if not tuned.entries:
        raise TunedError("the tuned config has no entries", "there is nothing to export")
    if tuned.device.kind not in KINDS:
        raise TunedError(
            f"tuned on {tuned.device.kind!r}, of which nothing can be exported for Gaudi", f"one of {', '.join(KINDS)}"
        )
    if mode and mode not in MODES:
        raise ConfigError(f"mode={mode} is not known", did_you_mean(mode, MODES))
    if any(ord(one) < ord(" ") for one in model):
        raise ConfigError("model has a control character", "the name or folder of a model")
    if model.startswith("-"):
        raise ConfigError(f"model={model} is an option of a command", "the name or folder of a model")
    _refuse_other_model(tuned, model)


def _refuse_other_model(tuned: Tuned, model: str) -> None:
    """A folder tells its shape; of a name nobody here knows it, and the plug-in looks when the server starts."""
    folder = Path(model).expanduser()
    if not model or not (folder / "config.json").is_file():
        return
    shape = shape_from_hf(folder)
    if shape_hash(shape) != shape_hash(tuned.model):
        raise TunedError(f"{model} is another model than {tuned.model.name}, which was tuned", "take its own config")


def _given(wishes: Wishes) -> Limits:
    for name in ("max_model_len", "max_num_batched_tokens", "max_num_seqs"):
        if getattr(wishes, name) < 0:
            raise ConfigError(f"{name}={getattr(wishes, name)}", "1 or more")
    if wishes.block_size < 1:
        raise ConfigError(f"block_size={wishes.block_size}", "1 or more")
    return Limits(
        block_size=wishes.block_size,
        max_model_len=wishes.max_model_len,
        max_num_batched_tokens=wishes.max_num_batched_tokens,
        max_num_seqs=wishes.max_num_seqs or None,
    )


def _level(number: int, tuned: Tuned, choice: Choice, shapes: Sequence[Shape], mode: str, limits: Limits) -> Level:
    return Level(
        level=number,
        settings=settings_of(tuned, choice.settings, mode, limits, number),
        flags=flags_of(tuned, limits),
        costs=list(costs_of(choice, shapes, tuned, mode, number)),
        over_stack=over_stack(choice, shapes),
    )


def _planned(shapes: Sequence[Shape], choices: Sequence[Choice], mode: str, block: int) -> list[Planned]:
    columns = [choice.options for choice in choices]
    return [
        _entry(shape, options[0], options[1] if len(options) > 1 else None, mode, block)
        for shape, *options in zip(shapes, *columns, strict=True)
    ]


def _entry(shape: Shape, lower: Option, upper: Option | None, mode: str, block: int) -> Planned:
    entry = shape.entry
    found = route(entry.split, shape.workload, mode, block)
    return Planned(
        bucket=entry.bucket,
        evidence=entry.evidence,
        pass_through=entry.pass_through,
        kept=entry.split,
        order=entry.order,
        kept_us=entry.latency_us.median,
        stack_us=stack_us(entry),
        route=found.level,
        reasons=list(found.reasons),
        level0=lower,
        level1=upper,
        notes=list(_notes(shape, upper, block, found.level)),
    )


def _notes(shape: Shape, upper: Option | None, block: int, level: int | None) -> Iterator[str]:
    entry = shape.entry
    over, runs = entry.speedup_vs_stack, served(entry.bucket, block)
    if upper is not None and upper.tuned and over is not None and over.low < 1 < over.median:
        yield f"what was kept is not told apart from the stack: {over.median:.3f}x [{over.low:.3f}, {over.high:.3f}]"
    if line_of(entry.bucket, block) is None:
        yield "vLLM takes one token for decode, so no line of the bucket file says this bucket"
    elif runs != entry.bucket:
        yield f"a context in whole blocks of {block}: it runs as {runs}, which nobody timed"
    if level is not None:
        yield from (known.note for known in shape.times.values() if known.is_kept and known.note)
