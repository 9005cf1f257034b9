"""Which rows are summed up together. A row may be in several groups; a nominal one is in none.

Names of groups of Gaudi3 end in `_gaudi3`, so that the files of two chips can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Callable

from overlap.devices.gaudi.validation.cases import Case

# Parameters from which on a model counts as a 7B model; Llama-2-7b has 6.7e9.
SEVEN_BILLION = 6.5e9
STEPS = ("decode", "generation")


def _decodes(case: Case) -> bool:
    """Steps and generations, but those that were published to compare softmax kernels over long prompts."""
    return case.kind in STEPS and not case.row.use.endswith(":tpc")


def _large_alone(case: Case) -> bool:
    return _decodes(case) and case.batch == 1 and case.parameters >= SEVEN_BILLION


# A row's first group is the one it is drawn in.
GROUPS: dict[str, tuple[str, Callable[[Case], bool]]] = {
    "gemm": ("GEMMs of many rows, alone", lambda case: case.kind == "gemm"),
    "gemm_thin": ("GEMMs of few rows, which wait for their weights", lambda case: case.kind == "gemm_thin"),
    "prefill_unfused": ("whole forwards with all scores materialised", lambda case: case.kind == "forward_unfused"),
    "prefill_fused": ("whole forwards with fused causal attention", lambda case: case.kind == "forward_fused"),
    "prefill_direct": ("whole forwards of an engine without PyTorch", lambda case: case.kind == "forward_direct"),
    "decode_b1_7b": ("steps of one sequence, models from 7B on", _large_alone),
    "decode": ("all decode steps and generations", _decodes),
    "long_prompt": (
        "generations published to compare softmax kernels",
        lambda case: case.kind in STEPS and not _decodes(case),
    ),
    "layer": ("one layer of a decode step", lambda case: case.kind == "layer"),
    "all_reduce": ("sums over cards, alone", lambda case: case.kind == "all_reduce"),
    "row_parallel": (
        "row-parallel layers in chunks; their chip is not stated",
        lambda case: case.kind == "row_parallel",
    ),
}


def groups_of(case: Case, chip: str) -> tuple[str, ...]:
    """Names of the groups of a row measured on `chip`."""
    return tuple(group_name(name, chip) for name, (_, rule) in GROUPS.items() if rule(case))


def group_name(name: str, chip: str) -> str:
    """The name of a group of one chip."""
    return name if chip == "gaudi2" else f"{name}_{chip}"


def meaning(name: str) -> str:
    """A group in words."""
    return GROUPS[name.removesuffix("_gaudi3")][0]
