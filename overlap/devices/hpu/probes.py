"""Does each call of the bridge do here what this program takes it to do? One tiny run each, with its values compared.

Runs in the process that holds the card, one probe per request, so that one that hangs or crashes costs only itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional

from overlap.devices.hpu import fused
from overlap.devices.hpu.bridge import Bridge
from overlap.devices.hpu.counters import COMPILATIONS, FALLBACKS, TOTAL
from overlap.devices.hpu.settings import COMPILE, EAGER, LAZY, LAZY_GRAPHS, MODES, HpuConfig
from overlap.devices.hpu.timing import stretch_ns
from overlap.devices.hpu.traced import Functional, trace
from overlap.errors import DeviceError, OverlapError
from overlap.kernels.fused import fused_attention, fused_partial
from overlap.traces.read import read_trace

# Relative L2 distance from the CPU's result up to which a kernel in bf16 counts as right.
TOLERANCE = 0.03
EPS = 1e-6


@dataclass(frozen=True)
class Probe:
    """What came of one: `works` is None where the mode or the release has no such thing."""

    name: str
    works: bool | None
    seen: str
    without: str


class _Absent(Exception):
    """The release has no such call."""


def run_probe(name: str, bridge: Bridge, config: HpuConfig) -> Probe:
    """Run the probe called `name`."""
    modes, look, without = PROBES[name]
    if config.mode not in modes:
        return Probe(name, None, f"not in mode {config.mode}", without)
    try:
        with torch.no_grad():
            return Probe(name, True, look(bridge, config), without)
    except _Absent:
        return Probe(name, None, "not in this release", without)
    except OverlapError as error:
        return Probe(name, False, error.message, without)
    except Exception as error:
        # Whatever a foreign call raises is an answer here.
        text = " ".join(str(error).split())
        return Probe(name, False, f"{type(error).__name__}: {text}"[:200], without)


def _there(found: Any) -> Any:
    if found is None:
        raise _Absent
    return found


def _alike(found: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> str:
    """Compare results of the card with those of the CPU."""
    worst = 0.0
    for one, other in zip(found, right, strict=True):
        ours, theirs = one.detach().cpu().float().flatten(), other.float().flatten()
        distance = float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))
        # Written so that NaN fails.
        if not distance <= TOLERANCE:
            raise DeviceError(f"wrong values: {distance:.1e} off the CPU's")
        worst = max(worst, distance)
    return f"values right ({worst:.0e})"


def _random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _work(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.softmax(x @ y, dim=-1) @ y


class _Work(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _work(x, y)


def _mode(bridge: Bridge, config: HpuConfig) -> str:
    lazy = _there(bridge.lazy())
    if lazy != config.lazy:
        raise DeviceError(f"the bridge is {'' if lazy else 'not '}lazy, against device.hpu.mode={config.mode}")
    return "lazy" if lazy else "not lazy"


def _engines(bridge: Bridge, config: HpuConfig) -> str:
    x, y = _random(64, 64), _random(64, 64)
    return _alike([_work(bridge.to_device(x), bridge.to_device(y))], [_work(x, y)])


def _events(bridge: Bridge, config: HpuConfig) -> str:
    _there(bridge.timing_event())
    x, step = bridge.to_device(_random(256, 256)), bridge.step(config.lazy)

    def run() -> None:
        held = x @ x  # noqa: F841 - lazy mode computes only what somebody still holds
        step()

    run()
    return f"{stretch_ns(bridge, run, 10) / 1e3:.1f} us for a GEMM of 256, one by one"


def _memory(bridge: Bridge, config: HpuConfig) -> str:
    found = bridge.memory()
    if "max_in_use" not in found:
        raise _Absent
    workspace = ", workspace told apart" if "workspace" in found else ""
    return f"{found['limit'] / 2**30:.0f} GiB, {found['in_use'] / 2**20:.0f} MiB in use{workspace}"


def _counter(name: str) -> Callable[[Bridge, HpuConfig], str]:
    def look(bridge: Bridge, config: HpuConfig) -> str:
        return f"{int(_there(bridge.metric(name))[TOTAL])} so far"

    return look


def _compiler(bridge: Bridge, config: HpuConfig) -> str:
    x, y = _random(64, 64), _random(64, 64)
    run = bridge.compiled(_Work(), config.compile_options)
    return _alike([run(bridge.to_device(x), bridge.to_device(y))], [_work(x, y)])


def _hints(bridge: Bridge, config: HpuConfig) -> str:
    wrapper = _there(bridge.hints())
    x, y = _random(64, 64), _random(64, 64)
    taken = (bridge.to_device(x), bridge.to_device(y))
    body, _ = trace(lambda *values: (_work(*values),), taken, ())
    run = bridge.compiled(Functional(body, None, wrapper, 0), config.compile_options)
    return _alike(run(*taken), [_work(x, y)])


def _graphs(bridge: Bridge, config: HpuConfig) -> str:
    x, y = _random(64, 64), _random(64, 64)
    run = bridge.graphed(_Work())
    # Outputs are the same tensors on every replay, so each is copied before the next.
    pairs = ((x, y), (y, x), (x + 1, y))
    found = [run(bridge.to_device(one), bridge.to_device(other)).clone() for one, other in pairs]
    return _alike(found, [_work(one, other) for one, other in pairs])


def _edges(bridge: Bridge, config: HpuConfig) -> str:
    edge = _there(bridge.control_edge())
    x, y = _random(64, 64), _random(64, 64)
    first = bridge.to_device(x)
    return _alike([edge(first @ first, bridge.to_device(y)) @ first], [y @ x])


def _profiler(bridge: Bridge, config: HpuConfig) -> str:
    x, y = bridge.to_device(_random(256, 256)), bridge.to_device(_random(256, 256))
    work: Callable[..., Any] = bridge.compiled(_Work(), config.compile_options) if config.mode == COMPILE else _work
    step = bridge.step(config.lazy)

    def run() -> None:
        held = work(x, y)  # noqa: F841 - lazy mode computes only what somebody still holds
        step()

    run()
    bridge.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.pt.trace.json"
        bridge.profile(run, path)
        rows = read_trace(path).events["engine"].value_counts(sort=True).rows()
    if not rows:
        raise DeviceError("the trace holds no lanes of the device")
    return ", ".join(f"{count} rows of {engine}" for engine, count in rows)


def _attention(bridge: Bridge, config: HpuConfig) -> str:
    sdpa = _there(bridge.fused_sdpa())
    newer = "with" if fused.takes_windows(sdpa) else "without"
    values = [_random(1, 2, 128, 2, 64), _random(1, 2, 128, 64), _random(1, 2, 128, 64)]
    attend = fused.replaced_calls(bridge, config)[fused_attention._opoverload]
    found = attend(*map(bridge.to_device, values), None, True)
    return f"{_alike([found], [fused_attention(*values, None, True)])}, {newer} windows and sinks"


def _slices(bridge: Bridge, config: HpuConfig) -> str:
    _there(bridge.sdpa_recompute())
    values = [_random(1, 2, 128, 2, 64), _random(1, 2, 128, 64), _random(1, 2, 128, 64)]
    bias = torch.zeros(128, 128, dtype=torch.bfloat16).masked_fill(torch.ones(128, 128).triu(1).bool(), float("-inf"))
    attend = fused.replaced_calls(bridge, config)[fused_partial._opoverload]
    found = attend(*map(bridge.to_device, values), bridge.to_device(bias))
    return _alike(found, fused_partial(*values, bias))


def _norm(bridge: Bridge, config: HpuConfig) -> str:
    norm = _there(bridge.rms_norm())
    x, gamma = _random(4, 32, 64), _random(64)
    found = norm.apply(bridge.to_device(x), bridge.to_device(gamma), EPS)
    return _alike([found], [functional.rms_norm(x.float(), (64,), gamma.float(), EPS)])


def _rotary(bridge: Bridge, config: HpuConfig) -> str:
    rotate = _there(bridge.rotary())
    first, second = _random(1, 16, 2, 32), _random(1, 16, 2, 32) + 1
    angles = torch.linspace(0, 3, 16 * 32).reshape(16, 1, 32)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    targets = [bridge.to_device(torch.zeros_like(first)) for _ in range(2)]
    values = [first, cos, second, sin]
    fused.rotate(rotate, [*map(bridge.to_device, values), *targets])
    return _alike(targets, [first * cos - second * sin, second * cos + first * sin])


_Look = Callable[[Bridge, HpuConfig], str]
# By name: the modes that need it, what looks, and what is lost without it.
PROBES: dict[str, tuple[Sequence[str], _Look, str]] = {
    "mode": (MODES, _mode, "the mode is taken on trust"),
    "GEMM and softmax": (MODES, _engines, "nothing runs"),
    "device events": (MODES, _events, "the host's clock is used"),
    "memory statistics": (MODES, _memory, "memory is counted by the program"),
    "count of compilations": (MODES, _counter(COMPILATIONS), "compilations while the clock runs go unseen"),
    "count of CPU fallbacks": (MODES, _counter(FALLBACKS), "ops on the CPU go unseen"),
    "torch.compile": ((COMPILE,), _compiler, "mode compile does not work"),
    "strict hints": ((COMPILE,), _hints, "the compiler orders as it likes"),
    "HPU graphs": ((LAZY_GRAPHS,), _graphs, "mode lazy_graphs does not work"),
    "control edges": ((LAZY, LAZY_GRAPHS), _edges, "the compiler orders as it likes"),
    "profiler": (MODES, _profiler, "no lanes, so no engine can be seen"),
    "FusedSDPA": (MODES, _attention, "attention is PyTorch's own"),
    "sdpa_recomp_fwd": (MODES, _slices, "no slices of fused attention"),
    "FusedRMSNorm": (MODES, _norm, "the norm as it is written"),
    "RotaryPosEmbedding": (MODES, _rotary, "the rotation as it is written"),
}
# Without these nothing can be measured in a mode.
NEEDED = {
    COMPILE: ("mode", "GEMM and softmax", "torch.compile", "profiler"),
    LAZY: ("mode", "GEMM and softmax", "profiler"),
    LAZY_GRAPHS: ("mode", "GEMM and softmax", "HPU graphs", "profiler"),
    EAGER: ("mode", "GEMM and softmax", "profiler"),
}


def usable(mode: str, probes: Sequence[Probe]) -> bool:
    """Whether a sweep can run in `mode`; what this release has no answer to is not held against it."""
    failed = {one.name for one in probes if one.works is False or (one.works is None and one.name != "mode")}
    return not failed & set(NEEDED[mode])


def configs(config: HpuConfig) -> list[HpuConfig]:
    """`config` in every mode, its own first."""
    others = [mode for mode in MODES if mode != config.mode]
    return [config, *(replace(config, mode=mode) for mode in others)]
