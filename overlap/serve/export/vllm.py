"""Export for vLLM on Gaudi: from a tuned config to a plan, from a plan to a folder, and back.

    level0/{overlap.env,buckets.txt,serve.sh}   settings alone
    level1/{... ,overlap.json}                  the same with the plug-in, where a bucket gains by it
    export.json, README.txt                     the plan, for programs and for people

Contract: both environment files are clean by the rules of `overlap.serve.vllm.rules`; an error there is a defect of the
exporter. `parse_export` gives back what `write_export` wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from overlap.errors import TunedError
from overlap.files import write_atomic
from overlap.serve.export.environment import BUCKETS, TUNED_JSON
from overlap.serve.export.folder import write_folder
from overlap.serve.export.limits import parse_buckets, render_buckets
from overlap.serve.export.plan import NAME, Level, Plan, load_plan, save_plan
from overlap.serve.export.words import ENVIRONMENT, SCRIPT, environment_header, header, page, script
from overlap.serve.tuned import Tuned
from overlap.serve.tuned_file import load, save_json
from overlap.serve.vllm.env_file import Assignment, Finding, read_env, render
from overlap.serve.vllm.rules import check_file

PAGE = "README.txt"


@dataclass(frozen=True)
class Bundle:
    """A plan, and the tuned config of level 1 if there is one."""

    plan: Plan
    tuned: Tuned | None


def write_export(bundle: Bundle, into: Path) -> list[tuple[Path, Finding]]:
    """Write the folder; the warnings of the rules with the file they are of.

    Raises:
        RunDirError: it cannot be written, or is something else already.
    """
    write_folder(into, (NAME,), lambda folder: _fill(bundle, folder))
    found = []
    for level in bundle.plan.levels:
        file = into / folder_of(level) / ENVIRONMENT
        found += [(file, finding) for finding in check_file(file)[1]]
    return found


def folder_of(level: Level) -> str:
    """The folder of a level."""
    return f"level{level.level}"


def _fill(bundle: Bundle, folder: Path) -> None:
    plan = bundle.plan
    for level in plan.levels:
        _write_level(bundle, level, folder / folder_of(level))
    save_plan(plan, folder)
    write_atomic(folder / PAGE, page(plan).encode())


def _write_level(bundle: Bundle, level: Level, folder: Path) -> None:
    plan = bundle.plan
    settings = [Assignment(name, value) for name, value in level.settings.items()]
    buckets = [entry.bucket for entry in plan.entries]
    head = header(plan, level, "Buckets (sequences, query tokens, blocks of context)")
    write_atomic(folder / BUCKETS, render_buckets(buckets, plan.limits.block_size, head).encode())
    write_atomic(folder / SCRIPT, script(plan, level).encode())
    if level.level and bundle.tuned is not None:
        save_json(bundle.tuned, folder / TUNED_JSON)
    file = write_atomic(folder / ENVIRONMENT, render(settings, environment_header(plan, level)).encode())
    errors = [finding for finding in check_file(file)[1] if finding.severity == "error"]
    if errors:
        raise AssertionError(f"the exporter wrote what its own rules refuse: {errors}")


def parse_export(folder: Path) -> Bundle:
    """The bundle in a folder; settings and options are those of the environment files, buckets those of the lists.

    Raises:
        TunedError: a file is missing or damaged, or they are not of one export.
    """
    plan = load_plan(folder)
    levels = [_read_level(folder / folder_of(level), level) for level in plan.levels]
    for level in plan.levels:
        _same_buckets(plan, folder / folder_of(level) / BUCKETS)
    upper = plan.level(1)
    tuned = load(folder / folder_of(upper) / TUNED_JSON) if upper is not None else None
    return Bundle(msgspec.structs.replace(plan, levels=levels), tuned)


def _read_level(folder: Path, level: Level) -> Level:
    file = read_env(folder / ENVIRONMENT)
    if file.findings:
        finding = file.findings[0]
        raise TunedError(f"{folder / ENVIRONMENT} line {finding.line}: {finding.reason}", "export again")
    flags = {name: value for name, value in file.flags.items() if name != "model"}
    return msgspec.structs.replace(level, settings={one.name: one.value for one in file.assignments}, flags=flags)


def _same_buckets(plan: Plan, file: Path) -> None:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TunedError(f"cannot read {file}", "export again") from error
    found = parse_buckets(text, str(file), plan.limits.block_size)
    theirs = [entry.bucket for entry in plan.entries]
    if differ := set(found) ^ set(theirs):
        first = min(map(str, differ))
        raise TunedError(f"{file} and {NAME} are not of one export: {first} is in one of them", "export again")
