"""Which buckets a table has: one, a grid of them, or those of a file.

Terms
    grid: all combinations of the values of batch, query and context, as far as a serving stack would run them: what
        has more than `max_model_len` tokens in a sequence, or more than `max_num_batched_tokens` in a step, is no
        bucket.
    linear: doubled from `min` up to `step`, then multiples of `step`; `max` is always there.
    exponential: `limit` values, evenly spaced on a logarithmic scale from `min` to `max`, rounded up to multiples of
        `step`; from a `min` of 0 or 1 the scale starts at `step` and `min` is put before it. Values that rounding has
        made equal count once. This is how vLLM on Gaudi spaces them; a `limit` of 0 takes as many as it would.
    file: see `overlap.bucket_file`.

All sizes are counts of sequences and of tokens, also where a stack counts blocks of tokens. Names are those of vLLM.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from overlap.errors import ConfigError
from overlap.workload import PHASES, Bucket

SINGLE, LINEAR, EXPONENTIAL, FILE = STRATEGIES = ("single", "linear", "exponential", "file")
AUTO, FULL, LIGHT = DETAILS = ("auto", "full", "light")
# Pages that somebody may still look at one by one; each takes 5 MB.
MOST_PAGES = 8
# A longer list is a mistake in a range: at seconds per bucket it would take a day.
MOST_BUCKETS = 4096


@dataclass(frozen=True)
class Dimension:
    """Values of one dimension of a grid; `limit` is for the exponential strategy."""

    min: int = 1
    step: int = 1
    max: int = 1
    limit: int = 0

    def fault(self, name: str, least: int) -> ConfigError | None:
        """What is wrong with it, if anything; `least` is the smallest value that makes sense."""
        if self.min < least:
            return ConfigError(f"{name}.min is {self.min}", f"it must be at least {least}")
        if self.step < 1 or self.limit < 0:
            return ConfigError(f"{name} has step {self.step}, limit {self.limit}", "a step of 1 or more, a limit of 0")
        if self.max < self.min:
            return ConfigError(f"{name} goes from {self.min} to {self.max}", "max must be at least min")
        return None


@dataclass(frozen=True)
class PrefillGrid:
    """Prompts: sequences, tokens of the step, tokens that are in the KV cache already."""

    batch: Dimension = field(default_factory=Dimension)
    query: Dimension = field(default_factory=lambda: Dimension(2048, 128, 2048))
    context: Dimension = field(default_factory=lambda: Dimension(0, 128, 0))


@dataclass(frozen=True)
class DecodeGrid:
    """Decode steps: sequences, and tokens in the KV cache of each."""

    batch: Dimension = field(default_factory=Dimension)
    context: Dimension = field(default_factory=lambda: Dimension(2048, 128, 2048))


@dataclass(frozen=True)
class BucketsConfig:
    """Which buckets are swept, and how.

    Args:
        strategy: `single` is the bucket of the workload, and no table.
        phases: phases of a grid; none for that of the workload.
        file: for the strategy of that name.
        block_size: tokens per block, the unit of contexts in vLLM's bucket files.
        jobs: buckets at once on a device that computes nothing; 0 for one per core.
        details: `light` leaves out the report and the TensorBoard files of every bucket, `full` writes them; `auto` is
            full for a few buckets and light for more.
    """

    strategy: str = SINGLE
    phases: list[str] = field(default_factory=list)
    prefill: PrefillGrid = field(default_factory=PrefillGrid)
    decode: DecodeGrid = field(default_factory=DecodeGrid)
    file: str = ""
    max_model_len: int = 8192
    max_num_batched_tokens: int = 8192
    block_size: int = 128
    jobs: int = 0
    details: str = AUTO

    def __post_init__(self) -> None:
        """Refuse what makes no list."""
        for name, value, known in (("strategy", self.strategy, STRATEGIES), ("details", self.details, DETAILS)):
            if value not in known:
                raise ConfigError(f"buckets.{name} is {value!r}", f"one of {', '.join(known)}")
        if unknown := [phase for phase in self.phases if phase not in PHASES]:
            raise ConfigError(f"buckets.phases has {unknown[0]!r}", f"of {', '.join(PHASES)}")
        for name, least in (("max_model_len", 1), ("max_num_batched_tokens", 1), ("block_size", 1), ("jobs", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"buckets.{name} is {getattr(self, name)}", f"it must be at least {least}")
        if self.strategy == FILE and not self.file:
            raise ConfigError("buckets.file is missing", "buckets=file buckets.file=<path of a bucket file>")
        if self.file and self.strategy != FILE:
            raise ConfigError(f"buckets.file is given, buckets={self.strategy}", "buckets=file reads it")
        for phase, dimensions in grids(self).items():
            for name, dimension in dimensions.items():
                least = 0 if (phase, name) == ("prefill", "context") else 1
                if fault := dimension.fault(f"buckets.{phase}.{name}", least):
                    raise fault


def grids(config: BucketsConfig) -> dict[str, dict[str, Dimension]]:
    """Dimensions by phase and name."""
    prefill, decode = config.prefill, config.decode
    return {
        "prefill": {"batch": prefill.batch, "query": prefill.query, "context": prefill.context},
        "decode": {"batch": decode.batch, "query": Dimension(), "context": decode.context},
    }


def buckets_of(config: BucketsConfig, own: Bucket) -> list[Bucket]:
    """The buckets that `config` describes, sorted and each once; `own` is that of the workload.

    Raises:
        ConfigError: there are none or too many, or lines of a file cannot be used; every such line is named.
    """
    if config.strategy == SINGLE:
        return [own]
    if config.strategy == FILE:
        from overlap.bucket_file import read_buckets

        found = read_buckets(Path(config.file), config)
    else:
        phases = dict.fromkeys(config.phases or [own.phase])
        found = [bucket for phase in phases for bucket in _grid(config, phase)]
    if not found:
        limits = f"max_model_len={config.max_model_len} max_num_batched_tokens={config.max_num_batched_tokens}"
        raise ConfigError(f"buckets={config.strategy} has no bucket within {limits}", "raise them, or lower min")
    refuse_too_many(len(found), f"buckets={config.strategy}")
    return sorted(found, key=bucket_order)


def details_of(config: BucketsConfig, count: int) -> str:
    """`full` or `light`, for a table of `count` buckets."""
    if config.details != AUTO:
        return config.details
    return FULL if count <= MOST_PAGES else LIGHT


def bucket_order(bucket: Bucket) -> tuple[int, int, int, int]:
    """Prefill before decode, then by batch, query and context, as in a `tuned.yaml`."""
    return (PHASES.index(bucket.phase), bucket.batch, bucket.query, bucket.context)


def refuse_too_many(count: int, what: str) -> None:
    """Raise `ConfigError` for a list that nobody can have meant."""
    if count > MOST_BUCKETS:
        raise ConfigError(f"{what} has {count:,} buckets", f"at most {MOST_BUCKETS:,}: larger steps, or a smaller max")


def within_limits(bucket: Bucket, config: BucketsConfig) -> str:
    """Why a serving stack would not run `bucket`; empty if it would."""
    if bucket.key_tokens > config.max_model_len:
        return f"{bucket.key_tokens} tokens in a sequence, max_model_len is {config.max_model_len}"
    tokens = bucket.batch * bucket.query
    if tokens > config.max_num_batched_tokens:
        return f"{tokens} tokens in a step, max_num_batched_tokens is {config.max_num_batched_tokens}"
    return ""


def _grid(config: BucketsConfig, phase: str) -> list[Bucket]:
    values = [_values(config.strategy, name, one) for name, one in grids(config)[phase].items()]
    refuse_too_many(math.prod(map(len, values)), f"the grid of {phase}")
    found = (Bucket(phase, *point) for point in itertools.product(*values))
    return [bucket for bucket in found if not within_limits(bucket, config)]


def _values(strategy: str, name: str, dimension: Dimension) -> Sequence[int]:
    if dimension.min == dimension.max:
        return [dimension.min]
    refuse_too_many((dimension.max - dimension.min) // dimension.step, f"dimension {name}")
    return linear(dimension) if strategy == LINEAR else exponential(dimension, usual_limit(name, dimension))


def linear(dimension: Dimension) -> list[int]:
    """Values of the linear strategy, ascending."""
    least, step, most = dimension.min, dimension.step, dimension.max
    doubled = itertools.takewhile(lambda value: value < step, (max(1, least) << i for i in itertools.count()))
    ramp = [] if least == 0 else [value for value in doubled if value <= most]
    return sorted({least, most, *ramp, *(value for value in range(step, most + 1, step) if value >= least)})


def usual_limit(name: str, dimension: Dimension) -> int:
    """How many values vLLM on Gaudi asks for: one per power of two, of blocks in the case of a context."""
    unit = dimension.step if name == "context" else 1
    powers = math.ceil(math.log2(max(1, math.ceil(dimension.max / unit))))
    return dimension.limit or max(2, powers if name == "query" else powers + 1)


def exponential(dimension: Dimension, limit: int) -> list[int]:
    """Values of the exponential strategy, ascending; fewer than `limit` where rounding makes some equal."""
    least, step, most = dimension.min, dimension.step, dimension.max
    start = step if least <= 1 else least
    if start >= most or limit == 1:
        return sorted({least, most}) if least <= 1 < limit else [most]
    ratio = most / start
    # Powers that come out whole on paper must not be rounded up because of their last bit.
    spaced = (round(start * ratio ** (i / (limit - 1)), 6) for i in range(limit))
    padded = {min(most, math.ceil(value / step) * step) for value in spaced}
    return sorted({*padded, most, *([least] if least <= 1 else [])})
