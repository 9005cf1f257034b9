"""The pretended card: a clock, two queues, memory and counters."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

TRAITS = {
    "stubborn": "the bridge is in the other mode than its environment says",
    "op_by_op": "eager mode is looked at: every op is launched when it is called",
    "no_card": "no card is there",
    "busy": "another process has acquired the card",
    "driver": "the driver is of another release",
    "oom": "programs whose scores are not tiled run out of memory",
    "hang": "the first program with more than one chunk never ends",
    "crash": "the first program with more than one chunk ends the process",
    "recompile": "every launch compiles a graph",
    "recompile_once": "the launch after the warm-up compiles a graph, later ones do not",
    "fallback": "softmax runs on the CPU",
    "fallback_once": "softmax runs on the CPU in the first launch",
    "greedy": "the allocator takes twice what the card has",
    "lost_writes": "copies into other tensors are lost once a few programs have run",
    "no_lanes": "traces hold no rows of the device",
    "old_sdpa": "FusedSDPA of 1.19, without windows and sinks",
    "refuse_hints": "the backend raises for hinted nodes",
    "reorder": "the compiler runs matrix nodes in an order of its own where no hints forbid it",
    "ignore_hints": "the compiler runs matrix nodes in an order of its own, whatever is hinted",
    "merge": "the compiler merges matrix nodes in pairs",
    "few_graphs": "HPU graphs beyond the first are not captured, and nobody says so",
    "metrics_moved": "statistics come in another order, the newest first",
    "no_metrics": "a release without counters",
    "no_events": "events take no time",
    "no_extended": "no extended memory summary",
    "nan": "results of matrix nodes are NaN",
    "wrong_linv": "row sums instead of their reciprocals",
}
GAUDI2_BYTES = 96 * 2**30
MATRIX = {"mm", "bmm", "addmm", "baddbmm"}
ATTENTION = {"sdpa_recomp_fwd", "sdpa_fwd"}
# Made up, so that matrix and vector work take about as long as each other in small programs.
MME_FLOPS_PER_NS, TPC_BYTES_PER_NS, NODE_NS = 100.0, 2.0, 500


def trait(name: str) -> bool:
    """Whether something is wrong with the card."""
    assert name in TRAITS, name
    return name in os.environ.get("DOUBLE", "").split(",")


def lazy() -> bool:
    """As the bridge of 1.19 reads it: anything but "0" is lazy."""
    return os.environ.get("PT_HPU_LAZY_MODE", "1") != "0"


@dataclass
class Node:
    """One launch: what it is, what it reads and writes (addresses of storages), how long it takes."""

    name: str
    engine: str
    reads: set[int]
    writes: set[int]
    ns: int
    number: int = 0
    start_ns: int = 0
    end_ns: int = 0


@dataclass
class Card:
    """State of the card."""

    clock_ns: int = 0
    compilations: int = 0
    fallbacks: dict[str, int] = field(default_factory=dict)
    launched: int = 0
    busy: bool = False
    launches: list[list[Node]] = field(default_factory=list)
    recipes: set[Any] = field(default_factory=set)
    profiling: bool = False
    in_use: int = 2**20
    max_in_use: int = 2**20
    replays: int = 0
    ungraphed: int = 0
    tensor_cache: bool = False

    def launch(self, nodes: list[Node], strict: bool = False) -> None:
        """Run the nodes of one recipe on two in-order queues."""
        if not nodes:
            return
        key = tuple((node.name, node.ns) for node in nodes)
        fresh = key not in self.recipes
        self.recipes.add(key)
        self.launched += 1
        self.busy = True
        # Three launches to warm up and to see how long one takes; the fourth is timed.
        again = trait("recompile_once") and self.launched == 4
        if fresh or trait("recompile") or again:
            self.compilations += 1
        for number, node in enumerate(nodes):
            node.number = number
            falls = trait("fallback") or (trait("fallback_once") and self.launched == 1)
            if falls and "softmax" in node.name:
                self.fallbacks[f"aten::{node.name}"] = self.fallbacks.get(f"aten::{node.name}", 0) + 1
        self.clock_ns = _schedule(_as_compiled(nodes, strict), self.clock_ns)
        if self.profiling:
            self.launches.append(nodes)
        self.max_in_use = max(self.max_in_use, self.in_use + 2**20)


CARD = Card()


def _as_compiled(nodes: list[Node], strict: bool) -> list[Node]:
    """What the graph compiler makes of an order; strict hints are kept unless they are ignored."""
    matrix = [place for place, node in enumerate(nodes) if node.engine == "MME"]
    if len(matrix) > 1 and (trait("ignore_hints") or (trait("reorder") and not strict)):
        first, last = nodes[matrix[0]], nodes[matrix[-1]]
        first.number, last.number = last.number, first.number
    if trait("merge"):
        for kept, gone in zip(matrix[::2], matrix[1::2], strict=False):
            nodes[gone].number, nodes[gone].name = nodes[kept].number, nodes[kept].name
    return nodes


def _schedule(nodes: list[Node], now_ns: int) -> int:
    """Start and end of every node; when all are done."""
    free = {"MME": now_ns, "TPC": now_ns}
    ready: dict[int, int] = {}
    for node in nodes:
        begin = max([free[node.engine], *(ready.get(one, now_ns) for one in node.reads | node.writes)])
        node.start_ns, node.end_ns = begin, begin + node.ns
        free[node.engine] = node.end_ns
        for one in node.writes:
            ready[one] = node.end_ns
    return max(free.values())


class Recorder(TorchDispatchMode):
    """Runs ops and notes what they are; with `keep`, so that they can be run again without their Python code."""

    def __init__(self, keep: bool = False) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._keep = keep

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one op."""
        kwargs = kwargs or {}
        lost = trait("lost_writes") and CARD.launched > LOSSES and func._opname == "copy_"
        made = args[0] if lost else func(*args, **kwargs)
        if self._keep:
            self.calls.append((func, args, kwargs, made))
        self.note(func, args, kwargs, made)
        return made

    def note(self, func: Any, args: Any, kwargs: Any, made: Any) -> None:
        """Add the node of one op; views are none."""
        name = func._opname
        given, results = _tensors((args, kwargs)), _tensors(made)
        aliases = {one.untyped_storage().data_ptr() for one in given}
        mutates = func._schema.is_mutable
        if not results or (not mutates and all(one.untyped_storage().data_ptr() in aliases for one in results)):
            return
        if trait("nan") and name in MATRIX:
            for one in results:
                one.fill_(float("nan"))
        matrix = name in MATRIX or name in ATTENTION
        moved = sum(one.numel() * one.element_size() for one in [*given, *results])
        ns = NODE_NS + int(_flops(given, results) / MME_FLOPS_PER_NS if matrix else moved / TPC_BYTES_PER_NS)
        writes = {one.untyped_storage().data_ptr() for one in results}
        self.nodes.append(Node(name, "MME" if matrix else "TPC", aliases, writes, ns))


def _flops(given: list[torch.Tensor], results: list[torch.Tensor]) -> int:
    return 2 * results[0].numel() * given[0].shape[-1]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for one in value for tensor in _tensors(one)]
    if isinstance(value, dict):
        return _tensors(list(value.values()))
    return []


def misbehave(nodes: int) -> None:
    """What a bad program does when it is first run; `nodes` is how many matrix nodes it has."""
    if nodes < LARGE:
        return
    if trait("hang"):
        with open(os.environ.get("DOUBLE_HANGS", os.devnull), "w", encoding="utf-8"):
            time.sleep(3600)
    if trait("crash"):
        os._exit(139)


# Launches behind which writes are lost.
LOSSES = 3
# Programs with at least this many matrix nodes are the ones that hang or crash.
LARGE = int(os.environ.get("DOUBLE_LARGE", "60"))
# Softmax nodes that take longer than this are the ones that do not fit.
OOM_NS = int(os.environ.get("DOUBLE_OOM_NS", "20000"))
