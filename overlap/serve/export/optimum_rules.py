"""Whether optimum-habana's text generation can do something with an argument list.

An error stops the script or is not what was meant; a warning has no effect. `optimum.yaml` says where rules are from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from overlap.serve.export.optimum_flags import FAST, SWITCH, Flag, arguments_of, flags
from overlap.serve.vllm.env_file import Finding
from overlap.similar import did_you_mean

SPLITS = ("--attn_batch_split", "--decode_attn_batch_split")


@dataclass(frozen=True)
class Given:
    """An argument list, and what it runs on; an empty family is one that nobody knows."""

    arguments: Mapping[str, str]
    cards: int
    lazy: bool
    family: str

    def has(self, name: str) -> bool:
        """Whether an option is given."""
        return name in self.arguments

    def number(self, name: str, otherwise: int) -> int:
        """A whole number, `otherwise` where it is not given or is none."""
        try:
            return int(self.arguments.get(name, otherwise))
        except ValueError:
            return otherwise


Findings = Iterator[Finding]


def check_arguments(words: Iterable[str], cards: int, lazy: bool, family: str) -> list[Finding]:
    """What is wrong with `words`, errors first."""
    given = Given(arguments_of(words), cards, lazy, family)
    found = [finding for rule in RULES for finding in rule(given)]
    return sorted(found, key=lambda one: (one.severity, one.name, one.reason))


def _error(name: str, reason: str) -> Finding:
    return Finding("error", 0, name, reason)


def _warning(name: str, reason: str) -> Finding:
    return Finding("warning", 0, name, reason)


def _values(given: Given) -> Findings:
    for name, value in given.arguments.items():
        flag = flags().get(name)
        if flag is None:
            yield _error(name, f"the script does not take it: {did_you_mean(name, sorted(flags()), 'remove it')}")
        elif reason := _fault(flag, value):
            yield _error(name, reason)


def _fault(flag: Flag, value: str) -> str:
    if flag.type == SWITCH:
        return f"{value!r} after a switch: remove it" if value else ""
    if flag.type == "int":
        number = value.removeprefix("-")
        if not (number.isascii() and number.isdigit()):
            return f"{value!r} is no whole number"
        return (
            f"{value} is too small: {flag.least} or more" if flag.least is not None and int(value) < flag.least else ""
        )
    if flag.type == "bool":
        return "" if value.lower() in ("true", "false", "") else f"{value!r} is neither true nor false"
    if flag.choices and value not in flag.choices:
        return f"{value!r} cannot pass the parser, which knows {', '.join(flag.choices)}"
    return "" if value else "it needs a value"


def _families(given: Given) -> Findings:
    for name in given.arguments:
        models = flags()[name].models if name in flags() else ()
        if models and given.family and given.family not in models:
            stops = name in (*SPLITS, "--reuse_cache")
            reason = f"{given.family} has nothing of the kind, only {', '.join(models)} do"
            yield _error(name, reason) if stops else _warning(name, f"{reason}, so it has no effect")


def _splits(given: Given) -> Findings:
    for name in SPLITS:
        if given.number(name, 1) <= 1:
            continue
        if given.cards <= 1:
            yield _warning(
                name, "with one card the script sets it back to 1: it hides an all-reduce, and there is none"
            )
        if given.number("--max_input_tokens", 0) <= 0:
            yield _error(name, "parts of a batch need prompts of a known length: set --max_input_tokens")
        if given.has("--reuse_cache"):
            yield _error(name, "--reuse_cache has one cache for the whole batch: give one of them only")
        if given.number(name, 1) > given.number("--batch_size", 1):
            yield _error(name, f"there are {given.number('--batch_size', 1)} sequences only")


def _flash(given: Given) -> Findings:
    for name in ("--flash_attention_recompute", "--flash_attention_causal_mask", FAST):
        if given.has(name) and not given.has("--use_flash_attention"):
            yield _warning(name, "without --use_flash_attention it has no effect")
    if given.has(FAST) and given.arguments[FAST].lower() in ("true", ""):
        yield _error(FAST, "given, it ends false whatever its value is: leave it out for a fast softmax")


def _graphs(given: Given) -> Findings:
    if given.has("--torch_compile"):
        if given.lazy:
            yield _error("--torch_compile", "the script stops where PT_HPU_LAZY_MODE is 1")
        if given.has("--use_hpu_graphs"):
            yield _warning("--use_hpu_graphs", "graphs are off with --torch_compile, so it has no effect")
    elif given.has("--regional_compile"):
        yield _warning("--regional_compile", "without --torch_compile it has no effect")
    if given.has("--limit_hpu_graphs") and not given.has("--use_hpu_graphs"):
        yield _error("--limit_hpu_graphs", "it needs --use_hpu_graphs")


def _buckets(given: Given) -> Findings:
    size = given.number("--bucket_size", -1)
    internal = given.has("--bucket_internal")
    if given.has("--reuse_cache") and size > 0 and not internal:
        yield _error("--bucket_size", "with --reuse_cache it must be 0 or less, or --bucket_internal be given")
    if internal and (size < 0 or not given.has("--use_kv_cache")):
        yield _error("--bucket_internal", "it needs --bucket_size of 0 or more and --use_kv_cache")
    if given.has("--reduce_recompile") and size <= 0:
        yield _error("--reduce_recompile", "it needs --bucket_size above 0")
    if given.has("--reuse_cache") and not given.has("--use_kv_cache"):
        yield _error("--reuse_cache", "it needs --use_kv_cache")


RULES: tuple[Callable[[Given], Findings], ...] = (_values, _families, _splits, _flash, _graphs, _buckets)
