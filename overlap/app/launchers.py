"""Launchers of multiruns: which plug-in each needs, and how what went wrong in other processes comes back.

Terms
    launcher: what runs the jobs of a multirun (`hydra/launcher=slurm`): one after the other here, or in processes of
        its own, perhaps on other machines.
    extra: the part of this package's requirements that brings the plug-in of a launcher.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.utils import JobReturn

from overlap.errors import ConfigError, OverlapError

GROUP = "hydra/launcher"
# Launcher -> (extra, package of the plug-in below `hydra_plugins`); ours, and those that plug-ins bring.
NEEDS: dict[str, tuple[str, str]] = {
    "joblib_models": ("joblib", "hydra_joblib_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit_slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit_local": ("slurm", "hydra_submitit_launcher"),
    "ray_local": ("ray", "hydra_ray_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}


def check_launcher(overrides: Sequence[str], multirun: bool) -> None:
    """Refuse a launcher that is not installed, or that would not be asked.

    Raises:
        ConfigError: with the extra to install, or the flag that is missing.
    """
    for override in overrides:
        key, _, name = override.partition("=")
        if key.lstrip("+") != GROUP:
            continue
        extra, plugin = NEEDS.get(name, ("", ""))
        if plugin and not installed(plugin):
            what = plugin.replace("_", "-")
            raise ConfigError(f"{override} needs {what}, which is not installed", f"pip install 'overlap[{extra}]'")
        if not multirun and not any(one.startswith("hydra.mode=") for one in overrides):
            raise ConfigError(f"{override} is for multiruns", "add -m and comma-separated values")


def installed(plugin: str) -> bool:
    """Whether `hydra_plugins.<plugin>` can be imported."""
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def this_process() -> str:
    """A name that tells this process from those that launchers start."""
    return f"{socket.gethostname()}:{os.getpid()}"


@contextmanager
def returned_mistakes(take: Callable[[OverlapError], None]) -> Iterator[None]:
    """Hand every mistake that a job of a multirun returned to `take`, whichever process it ran in.

    Hydra drops what a multirun returns, and its callbacks are called where the job runs, so the one place where all
    results come together is the call itself.
    """
    multirun = Hydra.multirun

    def watched(self: Hydra, *args: Any, **kwargs: Any) -> Any:
        returned = multirun(self, *args, **kwargs)
        for job in _jobs(returned):
            if isinstance(job._return_value, OverlapError):
                take(job._return_value)
        return returned

    Hydra.multirun = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.multirun = multirun  # type: ignore[method-assign]


def _jobs(returned: Any) -> Iterator[JobReturn]:
    """Sweepers return batches of jobs, or nothing."""
    if isinstance(returned, JobReturn):
        yield returned
    elif isinstance(returned, (list, tuple)):
        for one in returned:
            yield from _jobs(one)
