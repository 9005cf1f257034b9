"""The block-level half of `overlap verify`: kept split against baseline on the device's engines, run by run."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from overlap.devices.base import Device
from overlap.devices.config import DeviceConfig
from overlap.devices.hpu.settings import HpuConfig
from overlap.search.bench import Bench
from overlap.search.candidate import BASELINE, Candidate
from overlap.search.config import LIST, SEARCHED
from overlap.search.progress import Progress
from overlap.serve.tuned import Entry, Tuned
from overlap.stats import Interval, median_interval

OP_REPEATS = 3
SEED = 0


@dataclass(frozen=True)
class BlockResult:
    """Paired speed-up of the kept split over the baseline; `order` says where its order came from."""

    speedup: Interval
    baseline_ns: Interval
    kept_ns: Interval
    order: str


def device_config(tuned: Tuned) -> DeviceConfig:
    """The device as it was set when the config was tuned, as far as the config tells."""
    software = tuned.device.software
    config = DeviceConfig(kind=tuned.device.kind)
    if tuned.device.kind != "hpu":
        return config
    told = {one.name: software[f"hpu.{one.name}"] for one in fields(HpuConfig) if f"hpu.{one.name}" in software}
    typed = {name: _typed(name, text) for name, text in told.items()}
    return replace(config, hpu=HpuConfig(mode=software.get("mode", HpuConfig.mode), **typed))  # type: ignore[arg-type]


def _typed(name: str, text: str) -> object:
    """A setting of the card from its text."""
    default = getattr(HpuConfig(), name)
    if isinstance(default, bool):
        return text == "True"
    if name == "sdpa_block":
        return int(text)
    return type(default)(text)


def time_block(
    tuned: Tuned, entry: Entry, run_dir: Path, device: Device, rounds: int, progress: Progress
) -> BlockResult:
    """Time both in random order, `rounds` times; `run_dir` is that of the sweep, if it is still there."""
    bench = Bench(tuned.workload(entry), device, {}, SEED)
    kept, order = _kept(bench, entry, run_dir)
    runs = {one: bench.runnable(one) for one in (BASELINE, kept)}
    times: dict[Candidate, list[int]] = {one: [] for one in runs}
    shuffle = random.Random(SEED)
    with progress.stage(f"block, {entry.bucket}", rounds) as step:
        for _ in range(rounds):
            for one in shuffle.sample(list(runs), 2):
                times[one].append(runs[one].time(1)[0])
            step(f"{times[BASELINE][-1] / times[kept][-1]:.3f}x")
    ratios = [before / after for before, after in zip(times[BASELINE], times[kept], strict=True)]
    return BlockResult(median_interval(ratios), median_interval(times[BASELINE]), median_interval(times[kept]), order)


def _kept(bench: Bench, entry: Entry, run_dir: Path) -> tuple[Candidate, str]:
    """The kept candidate, with its order known to the bench."""
    candidate = Candidate(entry.split, entry.order)
    if entry.order == SEARCHED:
        names = _kept_order(run_dir)
        number = {op.name: index for index, op in enumerate(bench.program(entry.split).ops)}
        if set(names) == number.keys():
            bench.searched[entry.split] = [number[name] for name in names]
            return candidate, "the order of the sweep"
        candidate = Candidate(entry.split, LIST)
    if candidate.order == LIST:
        bench.learn(entry.split, OP_REPEATS)
    lost = entry.order != candidate.order
    return candidate, f"a {LIST} order, for that of the sweep is gone" if lost else f"the {entry.order} order"


def _kept_order(run_dir: Path) -> list[str]:
    """Names of the ops in the order that was kept; none where the run is gone."""
    try:
        content = json.loads((run_dir / "profile.json").read_bytes())
    except (OSError, ValueError):
        return []
    names = content.get("kept_order") if isinstance(content, Mapping) else None
    return [str(name) for name in names] if isinstance(names, list) else []
