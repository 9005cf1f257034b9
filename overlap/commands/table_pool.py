"""Processes that sweep the buckets of a table side by side; for devices that compute nothing.

Contract: a pool never outlives the process that made it. On an error and on Ctrl-C its processes are ended at once:
what they have found is in the journals of their buckets. If the process itself is killed, they notice and end.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial

import torch

from overlap.commands.table_job import Outcome, Quiet, Shared, sweep_bucket
from overlap.devices.base import Device
from overlap.devices.registry import open_device
from overlap.errors import DeviceError
from overlap.search.progress import Progress
from overlap.split import Split
from overlap.workload import Bucket

Submit = Callable[[Bucket, Sequence[Split]], "Future[Outcome]"]
# What a process of the pool was given when it started: the same for all of its buckets, and its device keeps what it
# has worked out for one bucket for the next.
_given: list[tuple[Shared, Device]] = []


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(shared: Shared, device: Device, jobs: int, progress: Progress) -> Iterator[Submit]:
    """What begins a bucket: in `jobs` processes, or, if that is 1, here and now on `device`."""
    if jobs == 1:
        yield partial(_here, shared, device, progress)
        return
    before = set(multiprocessing.active_children())
    # A copy of this process would have its threads' locks, but not its threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _begin, (shared,))
    try:
        yield partial(_submit, pool)
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            hint = "perhaps for want of memory: buckets.jobs=1 takes less; the same hydra.run.dir goes on"
            raise DeviceError("a process that swept buckets was ended from outside", hint) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _here(
    shared: Shared, device: Device, progress: Progress, bucket: Bucket, seeds: Sequence[Split]
) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(sweep_bucket(shared, device, bucket, seeds, progress))
    return future


def _submit(pool: ProcessPoolExecutor, bucket: Bucket, seeds: Sequence[Split]) -> Future[Outcome]:
    # A terminal sends Ctrl-C to everybody; the process that made the pool answers it. What is blocked here stays so in
    # the processes that are started meanwhile.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_there, bucket, seeds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _begin(shared: Shared) -> None:
    """Make a process one of the pool."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _given.append((shared, open_device(shared.device)))
    # What PyTorch has loaded never dies, and walking it again and again is a twentieth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _there(bucket: Bucket, seeds: Sequence[Split]) -> Outcome:
    shared, device = _given[0]
    outcome = sweep_bucket(shared, device, bucket, seeds, Quiet())
    _give_back()
    return outcome


def _give_back() -> None:
    """Return what the bucket took to the system: glibc keeps holes of some 20 MB per bucket, for each process."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
