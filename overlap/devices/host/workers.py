"""The worker threads: one per queue, each with its own intra-op threads and, where the OS allows, its own cores."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class CoreShare:
    """Cores of one engine: how many intra-op threads, and on which CPUs (empty: not pinned)."""

    threads: int
    cpus: tuple[int, ...]


def share_cores(mme_threads: int | None, tpc_threads: int | None, pin: bool) -> tuple[CoreShare, CoreShare]:
    """Split the cores this process may use: evenly by default, the odd one to the MME; one core serves both."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    tpc = tpc_threads or (max(1, len(cpus) - mme_threads) if mme_threads else max(1, len(cpus) // 2))
    mme = mme_threads or max(1, len(cpus) - tpc)
    can_pin = pin and hasattr(os, "sched_setaffinity") and mme + tpc <= len(cpus)
    first = tuple(cpus[:mme]) if can_pin else ()
    second = tuple(cpus[mme : mme + tpc]) if can_pin else ()
    return CoreShare(mme, first), CoreShare(tpc, second)


class Worker:
    """A thread that runs jobs one after the other under inference mode."""

    def __init__(self, name: str, share: CoreShare) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], None], queue.SimpleQueue[str]] | None] = queue.SimpleQueue()
        self._name = name
        self._share = share
        self._thread = threading.Thread(target=self._loop, name=f"overlap-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], done: queue.SimpleQueue[str]) -> None:
        """Run `job` on the thread and put the worker's name into `done` afterwards. `job` must not raise."""
        self._jobs.put((job, done))

    def close(self) -> None:
        """End the thread after its current job."""
        self._jobs.put(None)
        self._thread.join(timeout=5.0)

    def _loop(self) -> None:
        if self._share.cpus:
            os.sched_setaffinity(threading.get_native_id(), self._share.cpus)
        # The thread count of PyTorch's OpenMP pool belongs to the thread that sets it.
        torch.set_num_threads(self._share.threads)
        with torch.inference_mode():
            while (item := self._jobs.get()) is not None:
                job, done = item
                try:
                    job()
                finally:
                    done.put(self._name)
