"""The `vllm serve` command that a comment of an environment file tells: `# vllm serve MODEL --block-size 128`.

A switch is "true", and "false" where it begins with `--no-`; dashes and underscores are the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

COMMAND = re.compile(r"[ \t]*(?:#.*?\b)?vllm[ \t]+serve\b[ \t]*(.*)", re.DOTALL)
NUMBER = re.compile(r"-\d+(\.\d+)?")
# Options without a value; after others comes one.
SWITCHES = frozenset(
    (
        "enforce-eager",
        "enable-prefix-caching",
        "enable-chunked-prefill",
        "async-scheduling",
        "trust-remote-code",
        "enable-expert-parallel",
        "disable-log-requests",
        "disable-log-stats",
        "enable-lora",
        "enable-auto-tool-choice",
        "split-qkv",
    )
)
SHORT = {
    "-tp": "tensor-parallel-size",
    "-pp": "pipeline-parallel-size",
    "-dp": "data-parallel-size",
    "-q": "quantization",
}


def serve_flags(text: str) -> dict[str, str]:
    """Options of the `vllm serve` command that a comment of `text` tells; `model` is what is served."""
    flags: dict[str, str] = {}
    for command in _commands(text):
        try:
            words = shlex.split(command)
        except ValueError:
            words = command.split()
        flags.update(_options(words))
    return flags


def _commands(text: str) -> Iterator[str]:
    """What follows `vllm serve`; a line that ends with a backslash goes on in the next."""
    joined = re.sub(r"\\[ \t]*\r?\n[ \t]*#?", " ", text)
    for line in joined.removeprefix("\ufeff").split("\n"):
        if match := COMMAND.match(line.rstrip("\r")):
            yield match.group(1)


def _options(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        start, equals, value = word.partition("=")
        if not start.startswith("-"):
            found.setdefault("model", word)
            continue
        name = SHORT.get(start, start).removeprefix("--").replace("_", "-")
        if name.startswith("no-"):
            name, value = name.removeprefix("no-"), "false"
        elif not equals:
            taken = name not in SWITCHES and rest and (not rest[-1].startswith("-") or NUMBER.fullmatch(rest[-1]))
            value = rest.pop() if taken else "true"
        found[name] = value
    return found
