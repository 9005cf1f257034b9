"""What every benchmark prints first: the default workload's shape, the machine, the versions."""

from __future__ import annotations

import datetime
import os
import platform
import sys

import torch

from overlap import __version__
from overlap.devices.host.device import cpu_name
from overlap.workload import Bucket, ModelShape, Workload

QWEN = ModelShape("qwen2.5-0.5b", 896, 14, 2, 64, 4864, 24, qkv_bias=True)
WORKLOAD = Workload(QWEN, Bucket("prefill", 1, 2048, 0), window_layers=2)


def describe() -> str:
    """Command, day, processor, cores and versions, one per line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return "\n".join(
        (
            f"command   python {' '.join(sys.argv)}",
            f"date      {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
            f"machine   {cpu_name()}, {cores} cores for this process, load {load:.2f} at the start",
            f"software  overlap {__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.release()}",
        )
    )
