"""Every call into Intel's PyTorch bridge, and nothing else; no other file imports `habana_frameworks`.

Written to the public API of releases 1.19 to 1.24 and probed feature by feature, never by version. All of it runs in
the child process that holds the card (`worker`), after its environment is complete. `core` is
`habana_frameworks.torch.core`, and so on.

| call | since | if it is absent |
|---|---|---|
| `import core` | 1.19 | no device |
| `torch.hpu.is_available()`, `torch.hpu.device_count()`, `torch.hpu.synchronize()` | 1.19 | no device |
| `utils.internal.is_lazy()` | 1.19 | the mode is taken on trust |
| `utils.experimental._get_device_type()`, `synDeviceType` | 1.19 | the chip is read out of its name |
| `torch.hpu.get_device_name()` | 1.19 | the device type is its name |
| `core.mark_step()` | 1.19 | lazy modes are refused |
| `torch.hpu.Event(enable_timing=True)`: `record()`, `elapsed_time()` | 1.19 | the host's clock, runs synchronised |
| `torch.hpu.memory_stats()`: Limit, InUse, MaxInUse | 1.19 | memory is counted by the program alone |
| `torch.hpu.reset_peak_memory_stats()` | 1.19 | the peak of the whole process stands |
| `torch.hpu.mem_get_info()` | 1.19 | the limit out of `memory_stats()` |
| `torch.hpu.memory._extended_memory_summary_dict()` | 1.19 | workspace is not told apart |
| `hpu.metrics.metric_global(name)`: `stats()` | 1.19 | the gates say that nobody counted |
| `torch.hpu.wrap_in_hpu_graph(module, disable_tensor_cache=True)` | 1.19, lazy | mode `lazy_graphs` is refused |
| `clear_cache()` of what it gives | 1.19, lazy | graphs go with their module |
| `torch.compile(backend="hpu_backend")` | 1.19, not lazy | mode `compile` is refused |
| `torch._higher_order_ops.hints_wrap.hints_wrapper` | torch 2.5 | orders are emitted but not hinted |
| `torch.ops.hpu.control_edge_other_(self, other)` | 1.19, source only | orders are emitted without edges |
| `torch.profiler.ProfilerActivity.HPU` | 1.19 | no profile |
| `hpex.kernels.FusedSDPA.apply()` | 1.19 | attention is PyTorch's own op |
| its `window_size` and `sinks` | 1.22 | they are not passed |
| `torch.ops.hpu.sdpa_recomp_fwd()` | 1.19 | splits with slices of fused attention fail |
| `hpex.normalization.FusedRMSNorm.apply()` | 1.19 | the norm as it was captured |
| `hpex.kernels.RotaryPosEmbeddingHelperV2.apply()` | 1.19 | the rotation as it was captured |

1.19 is the oldest release whose source was read, so it stands for "1.19 or before".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch

from overlap.errors import DeviceError

ROOT = "habana_frameworks.torch"
BACKEND = "hpu_backend"
RELEASES = "1.19 to 1.24"


class Bridge:
    """What of the bridge is there."""

    def __init__(self) -> None:
        self._core = _module(f"{ROOT}.core")
        self._hpu: Any = getattr(torch, "hpu", None)
        if self._core is None or self._hpu is None:
            raise DeviceError(
                "habana_frameworks is not usable in this environment",
                "run inside Intel's PyTorch container, or see what `overlap doctor` says",
            )
        self._metrics = _module(f"{ROOT}.hpu.metrics")
        self._kernels = _module(f"{ROOT}.hpex.kernels")
        self._normalization = _module(f"{ROOT}.hpex.normalization")
        self._experimental = _module(f"{ROOT}.utils.experimental")
        self._internal = _module(f"{ROOT}.utils.internal")
        self.device = torch.device("hpu")
        # Why this process compiles without hints; empty as long as none were refused.
        self.refusal = ""

    # -- device ------------------------------------------------------------------------------------------------------

    def available(self) -> bool:
        """Whether a card can be used by this process."""
        return bool(self._hpu.is_available()) and self.count() > 0

    def lazy(self) -> bool | None:
        """Whether ops are accumulated until a step is marked; None if nothing tells."""
        read = getattr(self._internal, "is_lazy", None)
        return None if read is None else bool(read())

    def count(self) -> int:
        """Cards that this process sees."""
        return int(self._hpu.device_count())

    def synchronize(self) -> None:
        """Wait for all work on all streams."""
        self._hpu.synchronize()

    def chip(self) -> str:
        """`gaudi`, `gaudi2`, `gaudi3`, or empty if neither the device type nor the name tells."""
        kinds = getattr(self._experimental, "synDeviceType", None)
        read = getattr(self._experimental, "_get_device_type", None)
        if kinds is not None and read is not None:
            found = read()
            for name in ("Gaudi3", "Gaudi2", "Gaudi"):
                if found == getattr(kinds, f"synDevice{name}", None):
                    return name.lower()
        name = self.name().lower().replace(" ", "")
        return next((chip for chip in ("gaudi3", "gaudi2", "gaudi") if chip in name), "")

    def name(self) -> str:
        """The card's name as the bridge gives it."""
        read = getattr(self._hpu, "get_device_name", None)
        return str(read()) if read is not None else ""

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the card, in the same layout, which programs are written for."""
        made = tensor.to(self.device)
        if made.stride() != tensor.stride():
            raise DeviceError(f"the card lays out {tuple(tensor.shape)} as {made.stride()}, not {tensor.stride()}")
        return made

    # -- time --------------------------------------------------------------------------------------------------------

    def timing_event(self) -> Any:
        """An event that takes the time, or None if this release has none."""
        make = getattr(self._hpu, "Event", None)
        if make is None:
            return None
        try:
            return make(enable_timing=True)
        except TypeError:
            return None

    def step(self, lazy: bool) -> Callable[[], None]:
        """What to call behind the ops that are to be one graph: ends it in lazy modes, does nothing in others."""
        if not lazy:
            return _nothing
        mark = getattr(self._core, "mark_step", None)
        if mark is None:
            raise DeviceError("this release has no lazy mode", "device.hpu.mode=compile")
        return lambda: mark()

    # -- memory ------------------------------------------------------------------------------------------------------

    def memory(self) -> dict[str, int]:
        """`limit`, `in_use`, `max_in_use`, and `workspace` and `last_workspace` where they are told apart; in bytes."""
        found: dict[str, int] = {}
        read = getattr(self._hpu, "memory_stats", None)
        if read is not None:
            names = {"Limit": "limit", "InUse": "in_use", "MaxInUse": "max_in_use"}
            found = {ours: int(value) for theirs, value in read().items() if (ours := names.get(theirs))}
        module = getattr(self._hpu, "memory", None)
        extended = getattr(module, "_extended_memory_summary_dict", None)
        if extended is not None:
            stats = dict(extended())
            if "workspace" in stats and "last_workspace" in stats:
                found |= {name: int(stats[name]) for name in ("workspace", "last_workspace")}
        info = getattr(self._hpu, "mem_get_info", None)
        if info is not None:
            found["limit"] = int(info()[1])
        return found

    def reset_peak(self) -> None:
        """Forget the highest use so far."""
        reset = getattr(self._hpu, "reset_peak_memory_stats", None)
        if reset is not None:
            reset()

    # -- counters ----------------------------------------------------------------------------------------------------

    def metric(self, name: str) -> dict[str, Any] | None:
        """Values of a metric by name; None if there is none. Statistics come as pairs, by position they differ."""
        read = getattr(self._metrics, "metric_global", None)
        metric = None if read is None else read(name)
        if metric is None:
            return None
        stats = metric.stats()
        pairs = stats.items() if isinstance(stats, Mapping) else (one for one in stats if _is_pair(one))
        return {str(key): value for key, value in pairs}

    # -- graphs ------------------------------------------------------------------------------------------------------

    def graphed(self, module: torch.nn.Module) -> torch.nn.Module:
        """`module` captured at its first call and replayed after it, as serving stacks do it."""
        wrap = getattr(self._hpu, "wrap_in_hpu_graph", None) or getattr(
            _module(f"{ROOT}.hpu"), "wrap_in_hpu_graph", None
        )
        if wrap is None:
            raise DeviceError(
                "this release has no HPU graphs in this mode", "device.hpu.mode=compile, or lazy without graphs"
            )
        # No limit on graphs: above it the bridge would silently run without one.
        made: torch.nn.Module = wrap(module, disable_tensor_cache=True)
        return made

    def clear_graphs(self, part: object) -> None:
        """Free the graphs of what `graphed` gave."""
        clear = getattr(part, "clear_cache", None)
        if clear is not None:
            clear()

    def compiled(self, module: torch.nn.Module, options: Mapping[str, Any]) -> Callable[..., Any]:
        """`module` compiled for static shapes."""
        if BACKEND not in torch._dynamo.list_backends(exclude_tags=()):
            raise DeviceError(f"torch.compile knows no backend {BACKEND}", "PT_HPU_LAZY_MODE must be 0 at import")
        more: dict[str, Any] = {"options": dict(options)} if options else {}
        # Dynamo keeps what it has compiled per code object, and refuses the ninth module that shares one.
        own = FunctionType(type(module).forward.__code__.replace(), type(module).forward.__globals__)
        module.forward = MethodType(own, module)
        made: Callable[..., Any] = torch.compile(module, backend=BACKEND, dynamic=False, fullgraph=True, **more)
        return made

    def hints(self) -> Callable[..., Any] | None:
        """PyTorch's `hints_wrapper`, or None."""
        found: Callable[..., Any] | None = getattr(_module("torch._higher_order_ops.hints_wrap"), "hints_wrapper", None)
        return found

    def control_edge(self) -> Any:
        """`(before, after) → after`: an edge between two tensors, or None."""
        return _op("control_edge_other_")

    # -- fused kernels -----------------------------------------------------------------------------------------------

    def fused_sdpa(self) -> Any:
        """The autograd function `FusedSDPA`, or None."""
        return getattr(self._kernels, "FusedSDPA", None)

    def sdpa_recompute(self) -> Any:
        """The raw fused attention that also gives row maxima and reciprocal row sums, or None."""
        return _op("sdpa_recomp_fwd")

    def rms_norm(self) -> Any:
        """The autograd function `FusedRMSNorm`, or None."""
        return getattr(self._normalization, "FusedRMSNorm", None)

    def rotary(self) -> Any:
        """The autograd function `RotaryPosEmbeddingHelperV2`, or None."""
        return getattr(self._kernels, "RotaryPosEmbeddingHelperV2", None)

    # -- profiler ----------------------------------------------------------------------------------------------------

    def profile(self, run: Callable[[], object], path: Path) -> None:
        """Call `run` under the profiler and write its trace to `path`."""
        # Looked up late: importing the bridge replaces both classes.
        activity = getattr(torch.profiler.ProfilerActivity, "HPU", None)
        if activity is None:
            raise DeviceError("PyTorch's profiler knows no HPU here", "run inside Intel's PyTorch container")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, activity]) as profiler:
            run()
            self.synchronize()
        profiler.export_chrome_trace(str(path))


def _nothing() -> None:
    return None


def _module(name: str) -> Any:
    """A module, or None if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _op(name: str) -> Any:
    """An op of the bridge, or None."""
    return getattr(torch.ops.hpu, name, None) if hasattr(torch.ops, "hpu") else None


def _is_pair(one: Any) -> bool:
    """Statistics may hold more than pairs: a list of recipes follows the totals."""
    return isinstance(one, (tuple, list)) and len(one) == 2
