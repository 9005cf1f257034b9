"""Sizes of a server that leave out none of the buckets, and the lines of the bucket file.

Terms
    blocks: how vLLM counts contexts: of one sequence in prefill, of all sequences together in decode.
    shape: what a line makes vLLM run; contexts are whole blocks there. A bucket whose context is no whole number of
        blocks runs in the next larger shape, and a comment above the line says which bucket that was.
    left out: one prompt token over a cache. vLLM takes a query of 1 for decode, so no line says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from overlap.errors import ConfigError, TunedError
from overlap.serve.export.plan import Limits
from overlap.workload import PHASES, Bucket

COMMENT = re.compile(rf"# (?:bucket|left out): ({'|'.join(PHASES)}) (\d+)x(\d+)\+(\d+)(?:;.*)?")
LINE = re.compile(r"\((\d+), (\d+), (\d+)\)")
Line = tuple[int, int, int]


def line_of(bucket: Bucket, block: int) -> Line | None:
    """The line of a bucket, none where vLLM would take it for something else."""
    if bucket.phase == "prefill":
        return None if bucket.query == 1 else (bucket.batch, bucket.query, math.ceil(bucket.context / block))
    # As few blocks as give the context back, which is how a bucket out of such a file came to it.
    fewest = max(bucket.batch, math.ceil(bucket.batch * bucket.context / block))
    line = (bucket.batch, 1, fewest)
    if shape_of(line, block) == bucket:
        return line
    return bucket.batch, 1, bucket.batch * math.ceil(bucket.context / block)


def shape_of(line: Line, block: int) -> Bucket:
    """The bucket that a line stands for, as `overlap.bucket_file` reads it."""
    batch, query, blocks = line
    if query != 1:
        return Bucket("prefill", batch, query, blocks * block)
    return Bucket("decode", batch, 1, math.ceil(blocks * block / batch))


def served(bucket: Bucket, block: int) -> Bucket | None:
    """The shape that a bucket runs in; none where no line says it."""
    line = line_of(bucket, block)
    return None if line is None else shape_of(line, block)


def render_buckets(buckets: Iterable[Bucket], block: int, header: Sequence[str]) -> str:
    """The text of a bucket file; `parse_buckets` gives the buckets back."""
    lines = [f"# {one}".rstrip() for one in header]
    written: set[Line] = set()
    by_line: dict[Line, list[Bucket]] = {}
    for bucket in buckets:
        line = line_of(bucket, block)
        if line is None:
            lines.append(f"# left out: {bucket}; vLLM takes one token for decode")
        else:
            by_line.setdefault(line, []).append(bucket)
    for line, held in by_line.items():
        if held != [shape_of(line, block)]:
            lines += [f"# bucket: {one}" for one in held]
        lines += [] if line in written else [str(line)]
        written.add(line)
    return "".join(f"{one}\n" for one in lines)


def parse_buckets(text: str, name: str, block: int) -> list[Bucket]:
    """The buckets of a file that `render_buckets` wrote.

    Raises:
        TunedError: a line that it never writes.
    """
    found: list[Bucket] = []
    told: list[Bucket] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        if match := COMMENT.fullmatch(raw):
            phase, *sizes = match.groups()
            bucket = Bucket(phase, *map(int, sizes))
            (found if raw.startswith("# left out") else told).append(bucket)
        elif match := LINE.fullmatch(raw):
            batch, query, blocks = map(int, match.groups())
            found += told or [shape_of((batch, query, blocks), block)]
            told = []
        elif raw.strip() and not raw.startswith("#"):
            raise TunedError(f"{name} line {number} is not one of an export: {raw[:80]}", "export again")
    return found


def limits_of(buckets: Sequence[Bucket], block: int, given: Limits) -> Limits:
    """Sizes that hold every bucket; those of `given` that are not 0 or none are taken, if they do.

    Raises:
        ConfigError: one is too small for a bucket, which vLLM would leave out without a word.
    """
    need = _needed(buckets, block)
    chosen = dict(need)
    for name in need:
        value = getattr(given, name)
        if not value:
            continue
        least = need[name]
        if least is not None and value < least:
            raise ConfigError(f"{name}={value} leaves out buckets that were tuned", f"{name}={least} holds all of them")
        chosen[name] = value
    tokens, sequences = chosen["max_num_batched_tokens"], chosen["max_num_seqs"] or 0
    if tokens is not None and sequences > tokens:
        if given.max_num_batched_tokens:
            raise ConfigError(
                f"max_num_batched_tokens={tokens} is less than the {sequences} sequences",
                f"max_num_batched_tokens={sequences}, for every sequence of a decode step is a token",
            )
        chosen["max_num_batched_tokens"] = sequences
    return Limits(
        block_size=block,
        max_model_len=chosen["max_model_len"] or block,
        max_num_batched_tokens=chosen["max_num_batched_tokens"] or block,
        max_num_seqs=chosen["max_num_seqs"],
    )


def _needed(buckets: Sequence[Bucket], block: int) -> dict[str, int | None]:
    """The least sizes; the number of sequences is none where no decode was tuned, and vLLM's own is left then."""
    prompts = [one for one in buckets if one.phase == "prefill"]
    decodes = [one for one in buckets if one.phase == "decode"]
    longest = max(((served(one, block) or one).key_tokens for one in prompts), default=block)
    cached = max((math.ceil(one.context / block) * block for one in decodes), default=block)
    step = max((one.batch * one.query for one in prompts), default=block)
    sequences = max((one.batch for one in buckets), default=1) if decodes else None
    return {
        "max_model_len": max(longest, cached, 2),
        "max_num_batched_tokens": max(step, block),
        "max_num_seqs": sequences,
    }
