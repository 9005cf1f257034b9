"""Whether vLLM on Gaudi can do something with an environment file: errors, and what has no effect.

An error stops vLLM at the start, or is a name or value that does not do what it says. A warning has no effect, or may
not be meant. `settings.yaml` says which commit of vLLM on Gaudi the rules were read from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from overlap.serve.vllm import bucket_rules, feature_rules, slice_rules, value_rules
from overlap.serve.vllm.env_file import Assignment, EnvFile, read_env
from overlap.serve.vllm.env_file import Finding as Finding
from overlap.serve.vllm.facts import Facts
from overlap.serve.vllm.settings import allowed

Rule = Callable[[Facts], Iterator[Finding]]
RULES: tuple[Rule, ...] = (*value_rules.RULES, *bucket_rules.RULES, *slice_rules.RULES, *feature_rules.RULES)


def check(
    assignments: Iterable[Assignment], flags: Mapping[str, str] | None = None, folder: Path | None = None
) -> list[Finding]:
    """What is wrong, by line; the last assignment of a name counts.

    Args:
        assignments: of an environment file.
        flags: options of the serve command.
        folder: where the file lies; without it, a bucket file is looked for only if its path is absolute.
    """
    facts = Facts({one.name: one for one in assignments}, flags or {}, folder)
    return _by_line(finding for rule in RULES for finding in rule(facts))


def check_file(path: Path) -> tuple[EnvFile, list[Finding]]:
    """The environment file at `path`, and everything that is wrong with it.

    Raises:
        ConfigError: it cannot be read.
    """
    found = read_env(path)
    return found, _by_line([*found.findings, *check(found.assignments, found.flags, path.expanduser().parent)])


def kernel_names(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Those that only native code below vLLM reads; there is nothing wrong with them."""
    return [one for one in assignments if one.name in allowed("kernel")]


def _by_line(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: one.place)
