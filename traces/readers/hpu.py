"""Lanes of the Gaudi inside a Kineto trace: which rows ran on the device, and on which engine.

A lane is known by what its rows say (`HW event name`), then by its thread's name, then by its thread id, which the
bridge builds as 1000 * type of engine + number of engine, then by the names of its ops.
"""

from __future__ import annotations

from typing import Any

# Position in this list is the type of engine in a thread id (gaudi-pytorch-bridge, hpu_trace_converter).
_TYPES = (
    *("DMA", "MME", "TPC", "DMA", "DMA", "DMA", "MME", "TPC", "OTHER", "OTHER", "OTHER", "OTHER", "OTHER", "OTHER"),
    *("NIC", "NIC", "NIC", "NIC"),
)
_TYPE_TEXTS = (*("DMA", "MME", "TPC", "PDMA", "EDMA", "KDMA", "MME", "TPC", "PSOC", "SM", "PMMU", "ROTATOR"),)
_WORDS = (("TPC", "TPC"), ("MME", "MME"), ("DMA", "DMA"), ("NIC", "NIC"), ("STM_", "NIC"))
_EVENTS = (("TPC_", "TPC"), ("DMA_TRC", "DMA"), ("STM_", "NIC"), ("NIC", "NIC"), ("WB0_", "MME"), ("SB0_", "MME"))
_EVENTS_MME = ("MMEH_", "MME_", "START_EVENT")
_OPS = (("gemm", "MME"), ("batchgemm", "MME"), ("convolution", "MME"), ("dma", "DMA"), ("memcpy", "DMA"))
LANE_FROM = 1000

# Monitors that mark a moment; the width that such a row may have is made up by the profiler's export.
START_ONLY = ("TPC_SPU_START", "TPC_QMAN_CMD_EXE", "DBG_DMA_TRC_RD_FRST_ADDR_PUSH")


def start_only(event: str) -> bool:
    """Whether rows of this `HW event name` are marks, not work."""
    return event in START_ONLY or "STM_0_" in event or "STM_1_" in event


def is_lane(pid: Any, tid: Any) -> bool:
    """Whether a thread can be a lane of the device: on process 0, with an id the bridge gives to engines."""
    return pid == 0 and isinstance(tid, int) and LANE_FROM <= tid < LANE_FROM * (len(_TYPES) + 1)


def lane_engine(event: str, thread: str, tid: Any, op: str) -> str:
    """Engine of a device row; OTHER if nothing tells."""
    for word, engine in _EVENTS:
        if event.startswith(word) or f"_{word}" in event:
            return engine
    if event.startswith(_EVENTS_MME):
        return "MME"
    upper = thread.upper()
    for word, engine in _WORDS:
        if word in upper:
            return engine
    if isinstance(tid, int) and tid // LANE_FROM < len(_TYPES) and tid >= LANE_FROM:
        return _TYPES[tid // LANE_FROM]
    lower = op.lower()
    return next((engine for word, engine in _OPS if lower.startswith(word)), "OTHER")


def lane_text(thread: str, tid: Any) -> str:
    """Name of a lane: its thread's name, or type and number out of its id."""
    if thread:
        return thread
    if isinstance(tid, int) and LANE_FROM <= tid < LANE_FROM * (len(_TYPE_TEXTS) + 1):
        kind, number = divmod(tid, LANE_FROM)
        return f"{_TYPE_TEXTS[kind] if kind < len(_TYPE_TEXTS) else 'engine'} {number}"
    return str(tid)
