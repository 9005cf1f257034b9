"""The files of a profile: `profile.json`, the event table, and traces for the viewers."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

from overlap.analysis.partition import partition
from overlap.files import write_atomic
from overlap.search.profile import Profile
from overlap.stats import finite
from overlap.traces.chrome import TraceInfo, chunk_flows, write_chrome
from overlap.traces.tensorboard import write_tensorboard


def write_profile(profile: Profile, run_dir: Path) -> None:
    """Write all of them; raises `RunDirError`."""
    found = partition(profile.events)
    device = profile.device
    content = {
        "evidence": device.evidence,
        "device": asdict(device),
        "workload": asdict(profile.workload),
        "split": profile.candidate.split.as_dict(),
        "order": profile.candidate.order,
        "latency_ns": finite(profile.latency),
        "uncertainty": asdict(profile.uncertainty) if profile.uncertainty else None,
        "bound_ns": profile.bound.time_ns,
        "work_ns": dict(profile.bound.work_ns),
        "window_ns": found.window_ns,
        "partition_ns": dict(found.parts_ns),
        "busy": found.busy,
        "peak_bytes": profile.peak_bytes,
        "ops": [
            {
                "name": op.name,
                "engine": op.engine.value,
                "kind": op.kernel.kind,
                "flops": op.kernel.flops,
                "elements": op.kernel.elements,
                "bytes": op.kernel.read_bytes + op.kernel.write_bytes,
                "isolated_ns": time_ns,
                "after": list(profile.program.predecessors[index]),
            }
            for index, (op, time_ns) in enumerate(zip(profile.program.ops, profile.op_ns, strict=True))
        ],
    }
    write_atomic(run_dir / "profile.json", json.dumps(content, indent=1, allow_nan=False).encode())
    buffer = io.BytesIO()
    profile.events.write_parquet(buffer)
    write_atomic(run_dir / "traces" / "profile.parquet", buffer.getvalue())
    info = TraceInfo(device.name, device.evidence, profile.program.label, device.memory_bytes, device.software)
    flows = chunk_flows(profile.program)
    write_chrome(profile.events, run_dir / "traces" / "profile.pt.trace.json.gz", info, flows)
    write_tensorboard(profile.events, run_dir / "tb" / "traces", info, worker="profile", time_ns=0)
