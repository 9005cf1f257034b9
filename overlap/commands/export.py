"""`overlap export`: write a tuned config in the form that a serving stack takes, or check an environment file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

from overlap.errors import ConfigError
from overlap.similar import did_you_mean

TARGETS = ("vllm", "optimum")
SIZES = ("block_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens")
USAGE = "overlap export tuned=<file> target=<vllm|optimum>, or overlap export --check <file>"


def run(
    tuned: str = "", target: str = "", into: str = "", mode: str = "", model: str = "", check: str = "", **sizes: str
) -> int:
    """Export `tuned` for `target` into a folder, or check the environment file `check`; the exit code.

    Raises:
        OverlapError: there is nothing to export, a wish cannot be, or a file cannot be read or written.
    """
    if check:
        if tuned or target or into or mode or model or sizes:
            raise ConfigError("check looks at one file and takes nothing else", "overlap export --check <file>")
        return _check(Path(check))
    if not tuned:
        raise ConfigError("tuned is missing", USAGE)
    if target not in TARGETS:
        raise ConfigError(f"target={target} is not known" if target else "target is missing", _target_hint(target))
    wishes = {name: _number(name, text) for name, text in sizes.items()}
    source = Path(tuned)
    place = Path(into) if into else source.parent / f"{source.stem}.{target}"
    WRITERS[target](source, place, mode, model, wishes)
    return 0


def _target_hint(target: str) -> str:
    return did_you_mean(target, TARGETS) if target else f"target=<{'|'.join(TARGETS)}>"


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ConfigError(f"{name}={text} is no whole number from 1 on", f"{name}=128")
    return int(text)


def _source(path: Path) -> tuple[str, str, str]:
    """Name, hash and date that an export names."""
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest(), date.today().isoformat()


def _vllm(source: Path, into: Path, mode: str, model: str, sizes: Mapping[str, int]) -> None:
    from overlap.commands.export_print import show_vllm
    from overlap.serve.export.make import Wishes, make_bundle
    from overlap.serve.export.vllm import write_export
    from overlap.serve.tuned_file import load

    tuned = load(source)
    bundle = make_bundle(tuned, _source(source), Wishes(mode=mode, model=model, **sizes))
    findings = write_export(bundle, into)
    show_vllm(bundle.plan, findings, into)


def _optimum(source: Path, into: Path, mode: str, model: str, sizes: Mapping[str, int]) -> None:
    from overlap.commands.export_print import show_optimum
    from overlap.serve.export.optimum import make_records
    from overlap.serve.export.optimum_files import write_records
    from overlap.serve.tuned_file import load

    if sizes:
        hint = "target=optimum runs one shape per process"
        raise ConfigError(f"{next(iter(sizes))} is a size of a vLLM server", hint)
    tuned = load(source)
    export = make_records(tuned, _source(source), mode, model)
    write_records(export, into)
    show_optimum(export, into)


Writer = Callable[[Path, Path, str, str, Mapping[str, int]], None]
WRITERS: Mapping[str, Writer] = {"vllm": _vllm, "optimum": _optimum}


def _check(path: Path) -> int:
    """Every finding, then one line over all; 1 where one is an error."""
    from overlap.serve.vllm.rules import check_file, kernel_names
    from overlap.serve.vllm.settings import source

    file, findings = check_file(path)
    for one in findings:
        print(f"{path}:{one.line}: {one.severity}: {one.name}: {one.reason}")
    for named in kernel_names(file.assignments):
        print(f"{path}:{named.line}: note: {named.name}: the kernel of the bridge reads it, not vLLM")
    errors = sum(one.severity == "error" for one in findings)
    counts = f"{_counted(errors, 'error')}, {_counted(len(findings) - errors, 'warning')}"
    print(f"{path}: {_counted(len(file.assignments), 'setting')}, {counts}, by the rules of {source()}")
    return int(errors > 0)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
