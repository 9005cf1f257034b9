"""Rules for single assignments: names that do nothing or are unknown, and values that their reader cannot take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping

from overlap.serve.vllm.env_file import Finding
from overlap.serve.vllm.facts import Facts
from overlap.serve.vllm.settings import FALSE, TRUE, Setting, Type, allowed, dead, known
from overlap.similar import did_you_mean

OURS = re.compile(r"VLLM_|HPU|PT_HPU")
# What vLLM itself reads and a rule here looks at.
UPSTREAM = ("VLLM_PLUGINS",)
FORWARDED = re.compile(r"HPU|RAY|VLLM")
BUILD = re.compile(r"\d+\.\d+\.\d+\.\d+")
Doubt = tuple[bool, str]  # Whether it is an error, and the reason.


def dead_names(facts: Facts) -> Iterator[Finding]:
    """Names, and options of the serve command, that nothing reads."""
    for name in facts.values:
        if reason := dead(name):
            yield facts.error(name, f"vLLM on Gaudi does not read it, remove it: {reason}")
    for option in facts.flags:
        if reason := dead(f"--{option}"):
            yield Finding("error", 0, f"--{option}", f"the serve command does not know it, remove it: {reason}")


def unknown_names(facts: Facts) -> Iterator[Finding]:
    """Names that look like vLLM's or the bridge's and are not in the list."""
    for name in facts.values:
        if OURS.match(name) and name not in UPSTREAM and known(name) is None and dead(name) is None:
            meant = did_you_mean(name, sorted(allowed()))
            other = "the bridge" if name.startswith("PT_HPU_") else "upstream vLLM or a connector"
            reason = f"vLLM on Gaudi does not read it, though {other} may: remove it unless that needs it"
            yield facts.warning(name, f"{reason}; {meant}" if meant else reason)


def deprecated_names(facts: Facts) -> Iterator[Finding]:
    """Names that are still read, for now."""
    for name, setting in _known(facts):
        if setting.deprecated:
            yield facts.warning(name, f"it is deprecated: {setting.deprecated}")


def values(facts: Facts) -> Iterator[Finding]:
    """Texts that the reader of a name cannot take, or takes for something else."""
    for name, setting in _known(facts):
        text = facts.values[name].value
        if text in setting.also:
            continue
        fault = CHECKS[setting.type](setting, text) or _outside(setting, text)
        if fault:
            yield facts.error(name, fault[1]) if fault[0] else facts.warning(name, fault[1])


def builds(facts: Facts) -> Iterator[Finding]:
    """A software release that cannot be compared with others."""
    text = facts.text("VLLM_BUILD")
    if text is not None and not BUILD.fullmatch(text):
        yield facts.error("VLLM_BUILD", f"{_shown(text)} is no release, vLLM stops: write four numbers, like 1.24.1.17")


def not_forwarded(facts: Facts) -> Iterator[Finding]:
    """Names that workers of Ray do not get; without a serve command nobody knows whether there are such workers."""
    backend = facts.flags.get("distributed-executor-backend", "" if not facts.flags else "mp")
    if backend in ("", "ray"):
        when = "with Ray, workers" if not backend else "Ray's workers"
        for name, _ in _known(facts):
            if not FORWARDED.search(name):
                yield facts.warning(name, f"{when} do not get it, as it has no HPU, RAY or VLLM: set it on every node")


def _known(facts: Facts) -> Iterator[tuple[str, Setting]]:
    for name in facts.values:
        if setting := known(name):
            yield name, setting


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _switch(setting: Setting, text: str) -> Doubt | None:
    low = text.lower()
    if setting.words == "any":
        off = low in FALSE or not low
        return (False, f"it is on whatever its value is: remove the line instead of {_shown(text)}") if off else None
    if low not in TRUE["feature"] and low not in FALSE:
        return True, f"{_shown(text)} is neither true nor false and would count as false: write true or false"
    if low in TRUE["feature"] and not setting.on(text):
        right = "1" if setting.words == "one" else "true"
        return False, f"where it is read, {_shown(text)} counts as false: write {right}"
    return None


def _number(setting: Setting, text: str) -> Doubt | None:
    try:
        int(text)
    except ValueError:
        return True, f"{_shown(text)} is no whole number, vLLM stops at the start: write digits only"
    return None


def _fraction(setting: Setting, text: str) -> Doubt | None:
    try:
        fine = math.isfinite(float(text))
    except ValueError:
        fine = False
    return None if fine else (True, f"{_shown(text)} is no number, vLLM stops at the start: write one like 0.1")


def _numbers(setting: Setting, text: str) -> Doubt | None:
    if any(_number(setting, part) for part in text.split(",")):
        return True, f"{_shown(text)} is no list of whole numbers, vLLM stops at the start: write them like 64,128"
    return None


def _choice(setting: Setting, text: str) -> Doubt | None:
    if text in setting.choices:
        return None
    return True, f"{_shown(text)} is not known and vLLM does not take it: write {' or '.join(setting.choices)}"


def _choices(setting: Setting, text: str) -> Doubt | None:
    return next((fault for part in text.split(",") if (fault := _choice(setting, part))), None)


def _anything(setting: Setting, text: str) -> Doubt | None:
    return None


def _outside(setting: Setting, text: str) -> Doubt | None:
    """A number beyond the ends that make sense."""
    low, high = setting.least, setting.most
    if setting.type not in ("int", "float") or (low is None and high is None):
        return None
    value = int(text) if setting.type == "int" else float(text)
    ends = f"{low:g} or more" if high is None else f"at most {high:g}" if low is None else f"{low:g} to {high:g}"
    if low is not None and value < low:
        return True, f"{_shown(text)} is too small: write {ends}"
    if high is not None and value > high:
        return True, f"{_shown(text)} is too large: write {ends}"
    return None


CHECKS: Mapping[Type, Callable[[Setting, str], Doubt | None]] = {
    "bool": _switch,
    "int": _number,
    "float": _fraction,
    "ints": _numbers,
    "choice": _choice,
    "choices": _choices,
    "path": _anything,
    "text": _anything,
}
RULES = (dead_names, unknown_names, deprecated_names, values, builds, not_forwarded)
