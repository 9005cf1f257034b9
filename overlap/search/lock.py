"""A device that measures is timed by one job at a time on one machine.

Terms
    lock: a file per card in the user's cache folder, held with `flock`. The operating system lets go of it when its
        owner ends, however that happens, so a file that lies there says nothing: only a held lock does.
    owner: process, machine, command and time of who holds it, written into the file for whoever waits.
    card: one accelerator of several; told by the variables that launchers and containers set.

Contract: inside `device_lock` no other job of this user on this machine is inside one of the same card. A device that
is a model is never locked. Cards are taken in sorted order, so that two jobs cannot wait for each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from overlap.devices.config import WAIT
from overlap.errors import DeviceError

POLL_S = 0.5
# Whoever waits is told again after this long, with the age of then.
REMIND_S = 300.0
# Where the cards of a process are named, the most specific first.
CARD_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "hpu": ("HLS_MODULE_ID", "HABANA_VISIBLE_MODULES"),
    "cuda": ("CUDA_VISIBLE_DEVICES",),
}


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    pid: int
    host: str
    command: str
    since_unix_s: float

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        return cls(os.getpid(), socket.gethostname(), shlex.join(sys.argv), time.time())

    def in_words(self, now_unix_s: float) -> str:
        """`pid 123 on x for 3 min`."""
        return f"pid {self.pid} on {self.host} for {age(now_unix_s - self.since_unix_s)}"


def age(seconds: float) -> str:
    """A length of time in one unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def cards(kind: str, environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The cards of `kind` that this process would use, sorted; one without a name where nothing tells."""
    environment = os.environ if environment is None else environment
    for variable in CARD_VARIABLES.get(kind, ()):
        named = {part.strip() for part in environment.get(variable, "").split(",")} - {""}
        if named and named != {"all"}:
            return tuple(sorted(named))
    return ("",)


def lock_path(kind: str, card: str) -> Path:
    """The lock file of a card; its name holds the machine, because home folders are shared between machines."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overlap" / "locks"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(part for part in (socket.gethostname(), kind, card) if part))
    return folder / f"{name}.lock"


class Timed(Protocol):
    """What a lock needs to know of a device, opened or not."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def evidence(self) -> str:
        """`measured` for what is locked."""


@contextmanager
def device_lock(
    device: Timed,
    policy: str = WAIT,
    timeout_s: float = 86_400.0,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Hold `device` for as long as the context lasts; `say` is told, one line each, what is waited for.

    Raises:
        DeviceError: somebody else holds it and `policy` is `refuse`, or `timeout_s` passed; this process holds it
            already, and would wait for itself; or the lock file cannot be used.
    """
    with ExitStack() as held:
        if device.evidence == "measured":
            deadline = time.monotonic() + (timeout_s if policy == WAIT else 0.0)
            for card in cards(device.kind):
                file = _open(lock_path(device.kind, card))
                # Closing it lets go of the lock.
                held.callback(os.close, file)
                _take(file, f"device {device.kind}{f' card {card}' if card else ''}", policy, deadline, say)
                _sign(file, Owner.me())
                held.callback(_sign, file, None)
        yield


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DeviceError(f"cannot open {path}: {error.strerror}", "set XDG_CACHE_HOME to a folder of yours") from error


def _take(file: int, what: str, policy: str, deadline: float, say: Callable[[str], None]) -> None:
    """Lock `file`, or wait for it until `deadline` on the monotonic clock."""
    said_pid, said_at = 0, 0.0
    while not _locked(file):
        owner, now = _owner(file), time.monotonic()
        in_use = f"{what} is in use by {owner.in_words(time.time()) if owner else 'another job'}"
        if now >= deadline or _mine(owner):
            by = f"; it runs: {owner.command}" if owner else ""
            hint = (
                "wait for it to end"
                if policy == WAIT
                else f"wait for it to end, or let this job wait with device.lock={WAIT}"
            )
            raise DeviceError(f"{in_use}{by}", hint)
        pid = owner.pid if owner else -1
        if pid != said_pid or now - said_at >= REMIND_S:
            say(f"{in_use}: waiting")
            said_pid, said_at = pid, now
        time.sleep(min(POLL_S, deadline - now))


def _mine(owner: Owner | None) -> bool:
    return owner is not None and (owner.pid, owner.host) == (os.getpid(), socket.gethostname())


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        hint = "set XDG_CACHE_HOME to a folder on a local disk"
        raise DeviceError(f"cannot lock the device: {error.strerror}", hint) from error
    return True


def _sign(file: int, owner: Owner | None) -> None:
    """Write `owner` into the file, or nobody; it is for people only, so a full disk is no reason to stop."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(vars(owner)).encode() if owner else b"", 0)


def _owner(file: int) -> Owner | None:
    """Who the file names; None while it is being written."""
    try:
        return Owner(**json.loads(os.pread(file, 65_536, 0)))
    except (OSError, ValueError, TypeError):
        return None
