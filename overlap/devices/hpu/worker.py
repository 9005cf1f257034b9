"""The process that holds the card. Started by `child`.

It answers one request at a time over its pipe and ends when the other side is gone. Ctrl-C is answered by the other
side, which then ends this process: a signal in the middle of a capture would leave the card in an unknown state.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from overlap.errors import OverlapError

FINE, MISTAKE, DEFECT = "fine", "mistake", "defect"
# Linux: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


def main(descriptor: int) -> int:
    """Serve until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    connection = Connection(descriptor)
    # Late: the environment is complete, and the bridge wants to be there before the first tensor.
    from overlap.devices.hpu.service import Service
    from overlap.devices.hpu.wire import receive, send

    service: Any = None
    while True:
        try:
            name, arguments = receive(connection)
            if name == "start":
                service = Service(*arguments)
                answer = service.describe()
            else:
                answer = getattr(service, name)(*arguments)
            send(connection, (FINE, answer))
        except (EOFError, BrokenPipeError):
            return 0
        except OverlapError as error:
            send(connection, (MISTAKE, error))
        except Exception as error:
            traceback.print_exc()
            send(connection, (DEFECT, f"{type(error).__name__}: {error}"))


def _end_with_parent() -> None:
    """A program that hangs would hold the card for ever once nobody is left to end it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve() -> None:
    """`main` on the descriptor in the arguments; does not come back."""
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    # The bridge may wait for the card at exit; whoever closed the pipe waits for nothing.
    os._exit(code)
