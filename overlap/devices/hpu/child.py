"""The other process, seen from here: started when first needed, watched, ended when it hangs.

Contract: a request that does not answer within its time ends the process by its id (and whatever it started); the next
request starts a new one. `generation` counts them, so that callers know when what they had prepared is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from overlap.devices.hpu.settings import HpuConfig
from overlap.devices.hpu.wire import receive, send
from overlap.devices.hpu.worker import FINE, MISTAKE
from overlap.errors import DeviceBusyError, DeviceError, OpFailedError

# Seconds that a process has to end by itself, and lines of its log that an error shows.
GRACE_S, LINES = 5.0, 3
# How long a card may stay taken after its process was ended, and how long to wait between two tries.
RECLAIM_S, PAUSE_S = 60.0, 2.0
# What a wait for a pipe can last.
LONGEST_S = 1e6
# Without the current folder on the path: it may hold another version of this package.
START = "import sys; sys.path[:1] == [''] and sys.path.pop(0); import overlap.devices.hpu.worker as w; w.serve()"


class Child:
    """A process with a card.

    Args:
        config: what it is started with.
        environment: its whole environment.
        timeout_s: how long a request may take.
    """

    def __init__(self, config: HpuConfig, environment: Mapping[str, str], timeout_s: float) -> None:
        self._config, self.environment = config, dict(environment)
        self._timeout_s = min(timeout_s, LONGEST_S)
        self._folder = tempfile.TemporaryDirectory(prefix="overlap-hpu-")
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self.generation = 0
        self.about: dict[str, Any] = {}

    @property
    def folder(self) -> Path:
        """Where files go that both sides read; gone when this side closes."""
        return Path(self._folder.name)

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.folder / "worker.log"

    def start(self) -> None:
        """Start the process if there is none.

        Raises:
            DeviceError: the card cannot be used.
        """
        if self._process is not None:
            return
        again = self.generation > 0
        until = time.monotonic() + RECLAIM_S
        while True:
            self._spawn()
            try:
                self.about = self._ask("start", self._config)
                return
            except DeviceBusyError:
                # The driver needs a while to take a card back from a process that was ended.
                self.kill()
                if not again or time.monotonic() > until:
                    raise
                time.sleep(PAUSE_S)
            except BaseException:
                self.kill()
                raise

    def _spawn(self) -> None:
        ours, theirs = Pipe()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno())],
                env=self.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal is for this side.
                start_new_session=True,
            )
        theirs.close()
        self._connection = ours
        self.generation += 1

    def ask(self, request: str, *arguments: object) -> Any:
        """Answer to a request.

        Raises:
            OpFailedError: it hung, died, or met a defect; the process was ended or is as it was.
            OverlapError: what the request raised.
        """
        self.start()
        return self._ask(request, *arguments)

    def _ask(self, request: str, *arguments: object) -> Any:
        connection = self._connection
        assert connection is not None
        try:
            send(connection, (request, arguments))
            if not connection.poll(self._timeout_s):
                self.kill()
                raise OpFailedError(
                    f"{request} did not end within {self._timeout_s:g} s; its process was ended",
                    "raise device.timeout_s if compiling takes that long",
                )
            kind, answer = receive(connection)
        except (EOFError, OSError) as error:
            raise self._died(request) from error
        except KeyboardInterrupt:
            # Whatever is being captured or compiled is of no use to anybody any more.
            self.kill()
            raise
        if kind == FINE:
            return answer
        if kind == MISTAKE:
            raise answer
        raise OpFailedError(f"{request} failed in the process with the card: {answer}", self._tail())

    def _died(self, request: str) -> DeviceError:
        code = self._process.wait() if self._process is not None else 0
        self.kill()
        how = f"by signal {-code}" if code < 0 else f"with {code}"
        if request == "start":
            return DeviceError(f"the process with the card ended {how}", self._tail() or "overlap doctor")
        return OpFailedError(f"the process with the card ended {how} during {request}", self._tail())

    def _tail(self) -> str:
        """The last lines that the process printed."""
        with suppress(OSError):
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            return " | ".join(lines[-LINES:])
        return ""

    def kill(self) -> None:
        """End the process now, with whatever it started."""
        process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is None:
            return
        # Its group is its own; if it is gone already, so is the group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """End the process in peace, or not."""
        process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is not None:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process = process
                self.kill()
        self._folder.cleanup()
