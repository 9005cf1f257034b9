"""Run a command through Hydra: compose, give it its run directory, and keep what went wrong.

Terms
    job: one run of a command; a multirun has several. A job that fails does not stop the others.
    elsewhere: in a process that a launcher started, which shares nothing with this one but what is pickled.
    mistake: an error that is the user's to fix (`OverlapError`); everything else is a defect and shows its traceback.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from overlap.app.arguments import check_flags, free_keys, quoted
from overlap.app.config import ROOTS, schema
from overlap.app.explain import explain
from overlap.app.launchers import returned_mistakes, this_process
from overlap.app.naming import register_resolvers
from overlap.commands import Command
from overlap.devices.host.memory import pool_memory
from overlap.errors import ConfigError, OverlapError, RunDirError

log = logging.getLogger("overlap")

# What an operating system says when a place cannot be written; anything else is a defect.
UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EFBIG,
}


class Interrupted(Exception):  # Not an error, hence the name.
    """Ctrl-C in a job; carries how to go on."""


# Marks an exception that a job has raised and logged; unlike a variable, it comes back from other processes.
DEFECT = "overlap_defect"


@dataclass
class Outcome:
    """What the jobs of one call came to; `process` and `argv` are those of the call, also where a job has a copy."""

    mistakes: list[OverlapError] = field(default_factory=list)
    resume: str = ""
    process: str = field(default_factory=this_process)
    argv: list[str] = field(default_factory=lambda: list(sys.argv))

    @property
    def elsewhere(self) -> bool:
        """Whether this is a copy in a process of a launcher."""
        return self.process != this_process()

    def take(self, mistake: OverlapError) -> None:
        """Report and keep a mistake, once."""
        if not any(one is mistake for one in self.mistakes):
            report(mistake)
            self.mistakes.append(mistake)


def launch(command: Command, arguments: Sequence[str]) -> int:
    """Run `command` with Hydra's `arguments`; the exit code.

    Raises:
        OverlapError: the arguments cannot be composed, or the run directory cannot be used.
        Interrupted: Ctrl-C; the message says how to go on.
    """
    arguments = free_keys(quoted(command.paths, arguments))
    overrides = check_flags(arguments)
    register()
    outcome = Outcome()
    run = import_module(command.module).run

    @hydra.main(version_base="1.3", config_path="pkg://overlap.conf", config_name=command.name)
    def task(config: Any) -> OverlapError | None:
        if outcome.elsewhere:
            _settle(command, outcome)
        return _job(run, config, outcome)

    try:
        with _as_hydra_expects(command, arguments), returned_mistakes(outcome.take):
            task()
    except KeyboardInterrupt as error:
        raise Interrupted(outcome.resume if "search" in command.groups else "") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(command, overrides, error) from error
    except ValueError as error:
        # `workload=null`: Hydra 1.3 raises a bare ValueError for it.
        if not str(error).startswith("Config group override"):
            raise
        raise ConfigError(str(error).splitlines()[0], "give the name of an option") from error
    except SystemExit as stop:
        # Hydra has printed one line itself.
        return 2 if stop.code else 0
    except Exception as error:
        # Outside a job all that is left to fail is making the run directory.
        unwritable = None if hasattr(error, DEFECT) else as_unwritable(error, {*UNWRITABLE, errno.ENOENT})
        if unwritable is None:
            raise
        raise unwritable from error
    return 2 if outcome.mistakes else 0


def register() -> None:
    """Tell Hydra the schemas and resolvers that `conf/` refers to."""
    register_resolvers()
    for name, root in ROOTS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema(root), provider="overlap")


def report(mistake: OverlapError) -> None:
    """One line on stderr."""
    print(f"overlap: {' '.join(str(mistake).split())}", file=sys.stderr)


def as_unwritable(error: BaseException | None, signs: Collection[int] = frozenset(UNWRITABLE)) -> RunDirError | None:
    """A `RunDirError` if `error`, or what caused it, is the refusal of a place to be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in signs:
            place = error.filename or "the run directory"
            return RunDirError(f"cannot write {place}: {error.strerror}", "choose a place with hydra.run.dir=<dir>")
        error = error.__cause__ or error.__context__
    return None


def _job(run: Callable[[Any, Path], None], config: Any, outcome: Outcome) -> OverlapError | None:
    """One job; its mistake, if any, is reported, kept and returned, so that the next job runs."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    log.info("%s in %s", HydraConfig.get().job.name, run_dir)
    try:
        run(config, run_dir)
    except KeyboardInterrupt:
        outcome.resume = _how_to_resume(run_dir)
        log.warning("interrupted")
        raise
    except Exception as error:
        mistake = _as_mistake(error)
        if mistake is None:
            log.exception("failed")
            setattr(error, DEFECT, True)
            raise
        log.error("%s", mistake)
        if not outcome.elsewhere:
            outcome.take(mistake)
        return mistake
    return None


def _settle(command: Command, outcome: Outcome) -> None:
    """Make a process of a launcher what the command line makes of its own."""
    # Files of a run name the command that it came from.
    sys.argv = list(outcome.argv)
    if "device" in command.groups:
        pool_memory()


def _as_mistake(error: Exception) -> OverlapError | None:
    if isinstance(error, OverlapError):
        return error
    if isinstance(error, OmegaConfBaseException):
        return ConfigError(str(error).splitlines()[0])
    return as_unwritable(error)


def _how_to_resume(run_dir: Path) -> str:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"what was measured is in {run_dir}; run the same command again to resume"
    return f"what was measured is kept; run again with hydra.run.dir={os.path.relpath(run_dir)} to resume"


@contextmanager
def _as_hydra_expects(command: Command, arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads `sys.argv`, and hands exceptions on, instead of printing and exiting, if told by the environment."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"overlap {command.name}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full
