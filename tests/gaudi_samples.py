"""The real pair of Gaudi3 files, where the checkout has it, and SYNTHETIC rows in the same layout."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared/data/traces"
RAW, ANALYZED = "debug_hw_prof_accel0_001.csv", "debug_hw_prof_accel0_001_analyzed_nodes.csv"
HEADER = (
    "Name,Trace Source,Engine,Event type,Timestamp[usec],recipeHandle,streamHandle,Recipe ID,Recipe name,Context ID,"
    "Device,Operation,Data Type,HW Event port,HW Event description,SPMU value,BMON min,BMON avg,BMON max,BMON matches,"
    "BMON configured cycles,NIC Packets amount,Misc"
)


def sample(name: str) -> bytes:
    """Content of a real sample; the test is skipped where it is absent."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"no {path}: the real samples lie beside the repository, not in it")
    return path.read_bytes()


def row(name: str, lane: str, event: str, time_us: str, monitor: str = "", **cells: str) -> str:
    """One SYNTHETIC row of the hardware profiler's CSV."""
    values = {
        "Name": name,
        "Trace Source": "HW",
        "Engine": lane,
        "Event type": event,
        "Timestamp[usec]": time_us,
        "recipeHandle": "0x1",
        "Recipe ID": "61055",
        "Context ID": "0",
        "Device": "accel0",
        "Operation": "add_f32" if "TPC" in lane else "GEMM",
        "Data Type": "bf16",
        "HW Event description": monitor,
        **{key.replace("_", " "): value for key, value in cells.items()},
    }
    return ",".join(values.get(column, "") for column in HEADER.split(","))


def tpc(name: str, lane: str, start_us: str, end_us: str, **cells: str) -> list[str]:
    """Start and halt of one SYNTHETIC TPC activation."""
    return [
        row(name, lane, "BEGIN", start_us, "TPC_SPU_START", **cells),
        row(name, lane, "END", end_us, "TPC_SPU_START_TO_SPU_HALT", **cells),
    ]


def csv(*rows: str, header: str = HEADER) -> bytes:
    """A file of `rows`."""
    return ("\n".join([header, *rows]) + "\n").encode()
