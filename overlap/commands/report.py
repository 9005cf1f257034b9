"""`overlap report`: a tuned config as a page for people who do not know the tool."""

from __future__ import annotations

from pathlib import Path

from overlap.errors import ConfigError

SUFFIX = ".report.html"


def run(tuned: str = "", into: str = "") -> None:
    """Write the page of `tuned` to the file `into`, by default beside it.

    Raises:
        OverlapError: the config cannot be read, or the file is something else's or cannot be written.
    """
    if not tuned:
        raise ConfigError("tuned is missing", "overlap report tuned=<file> [into=<file>]")

    from rich.console import Console

    from overlap.analysis.numbers import counted
    from overlap.commands.report_page import page
    from overlap.files import write_atomic
    from overlap.serve.tuned_file import load

    path = Path(tuned)
    config = load(path)
    target = Path(into) if into else path.with_name(path.stem + SUFFIX)
    _refuse_foreign(target)
    # JSON may hold halves of characters, which no file can.
    write_atomic(target, page(config, path, target.parent).encode(errors="replace"))
    said = f"{target}: {counted(len(config.entries), 'bucket')}"
    Console().print(said, soft_wrap=True, highlight=False, markup=False)


def _refuse_foreign(target: Path) -> None:
    """Raise for a file that is there and that no call of this command has written."""
    from overlap.commands.report_bucket import is_own

    try:
        if target.is_dir():
            raise ConfigError(f"{target} is a folder", "into=<file>.html")
        if target.exists() and not (target.is_file() and is_own(target)):
            raise ConfigError(f"{target} is there and was not written by overlap report", "into=<another file>.html")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {target}: {error}", "into=<another file>.html") from error
