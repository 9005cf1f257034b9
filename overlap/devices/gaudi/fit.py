"""Fits constants whose source is `fitted`, from calibration rows only: `python -m overlap.devices.gaudi.fit gaudi2`.

Method: each group of constants has calibration rows of its own. Coordinate descent over the values that the constants
may take (limits where physics or a document gives them) finds the least sum of absolute relative errors, in which one
odd row does not bend the others; the same fit with one row left out at a time gives the interval that is written
beside the value, unless the value lies at a limit: then the limits are. Nothing is written: the values are printed
beside those of the YAML files, where a person puts them, and a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overlap.devices.gaudi.constants import Constants, load_constants
from overlap.devices.gaudi.predict import ModelPredictor
from overlap.devices.gaudi.validation.models import find_model
from overlap.devices.gaudi.validation.predictor import Stack
from overlap.devices.gaudi.validation.rows import Row, read_rows
from overlap.errors import ConfigError
from overlap.workload import Bucket

FITTED = "gaudi2"
# Steps per coordinate and rounds over all of them; the grid shrinks around the best value in every round.
STEPS, ROUNDS = 9, 6
Point = Callable[[ModelPredictor], float]


@dataclass(frozen=True)
class Group:
    """Constants that are fitted together, with the limits of each, and the ids of the rows they are fitted to."""

    limits: Mapping[str, tuple[float, float]]
    rows: Sequence[str]


GROUPS = {
    "nic": Group({"nic.base_ns": (5e3, 3e4), "nic.per_peer_ns": (0.0, 5e3)}, ("COMM-0137", "COMM-0138", "COMM-0139")),
    "gemm": Group({"gemm.efficiency": (0.9, 1.0)}, ("GEMM-0192", "GEMM-0193", "GEMM-0194", "GEMM-0195", "GEMM-0196")),
    "gemm_fp8": Group(
        {"gemm.fp8_efficiency": (0.85, 1.0)},
        ("GEMM-0198", "GEMM-0200", "GEMM-0202", "GEMM-0204", "GEMM-0206", "GEMM-0208", "GEMM-0210"),
    ),
    "decode": Group(
        # Bandwidth: the compiler's 85 % to the 92 % that decode sustains (DECODE-0155 and 0156).
        {"memory.hbm_gb_per_s": (2083.0, 2254.0)},
        ("DECODE-0001", "DECODE-0014", "DECODE-0053", "DECODE-0058", "DECODE-0065", "DECODE-0067", "GEMM-0238"),
    ),
    "attention": Group({"tpc.fused_fast_softmax_cycles": (10.0, 40.0)}, ("ATTN-0011",)),
}


def fit(
    group: Group, rows: Mapping[str, Row], constants: Constants, leave_out: bool = True
) -> dict[str, tuple[float, float, float]]:
    """Value, least and largest of the leave-one-out fits (the value itself without them), by constant."""
    points = {name: make_point(rows[name]) for name in group.rows}
    best = _descend(group, list(points.values()), constants)
    others = [best]
    if leave_out and len(points) > len(group.limits):
        for left_out in points:
            others.append(_descend(group, [one for name, one in points.items() if name != left_out], constants))
    return {
        name: (best[name], min(one[name] for one in others), max(one[name] for one in others)) for name in group.limits
    }


def _descend(group: Group, points: Sequence[Point], constants: Constants) -> dict[str, float]:
    """Coordinate descent with a grid that narrows."""
    values = {name: (low + high) / 2 for name, (low, high) in group.limits.items()}
    reach = {name: (high - low) / 2 for name, (low, high) in group.limits.items()}
    for _ in range(ROUNDS):
        for name, (low, high) in group.limits.items():
            grid = sorted({min(high, max(low, values[name] + reach[name] * step)) for step in _steps()})
            values[name] = min(grid, key=lambda value, name=name: _error(points, constants, values | {name: value}))  # type: ignore[misc]
        reach = {name: value / 2 for name, value in reach.items()}
    return values


def _steps() -> Iterator[float]:
    half = STEPS // 2
    yield from (step / half for step in range(-half, half + 1))


def _error(points: Sequence[Point], constants: Constants, values: Mapping[str, float]) -> float:
    predictor = ModelPredictor(constants.chip, constants.replaced(values))
    return sum(abs(point(predictor)) for point in points)


def make_point(row: Row) -> Point:
    """The relative error of a predictor on a calibration row.

    Raises:
        ValueError: the row is no calibration row, or of a kind that is not fitted to.
    """
    if not row.calibration:
        raise ValueError(f"{row.id} is no calibration row")
    parameters = row.params
    if row.metric == "mean_throughput":
        m, k, n = parameters["M"], parameters["K"], parameters["N"]
        published_ns = 2.0 * m * n * k / row.value / 1e3
        dtype = "fp8" if row.dtype.startswith("fp8") else "bf16"
        return lambda predictor: predictor.gemm_ns(dtype, m, n, k) / published_ns - 1
    if row.metric == "throughput":
        model = find_model(parameters["model"])
        step_ns = parameters["batch"] / row.value * 1e9
        bucket = Bucket("decode", parameters["batch"], 1, KV_BUCKET - 1)
        stack = Stack(device_loop=True)
        return lambda predictor: (
            predictor.forward_ns(model.shape, model.vocab, model.tied, bucket, 1, stack) / step_ns - 1
        )
    if "weight_bytes" in parameters:
        n = round(parameters["weight_bytes"] / 2 / HEAD_DEPTH)
        one_ns = parameters["time_ms"] * 1e6
        return lambda predictor: predictor.gemm_ns("bf16", 1, n, HEAD_DEPTH) / one_ns - 1
    if row.id.startswith("COMM"):
        return lambda predictor: 2 * predictor.all_reduce_ns(8192 * 4, parameters["num_devices"]) / row.value / 1e3 - 1
    if row.id.startswith("ATTN"):
        heads, tokens, head_dim = parameters["heads"], parameters["seq"], parameters["head_dim"]
        return lambda predictor: predictor.attention_ns(heads, tokens, head_dim) / row.value / 1e6 - 1
    raise ValueError(f"{row.id} is of a kind that is not fitted to")


# Depth of the LM head that GEMM-0238 is read as; only its bytes are published, and only they matter.
HEAD_DEPTH = 5120


def _step_ns(predictor: ModelPredictor, row: Row) -> float:
    """One decode step of a row's model, steps following each other on the device."""
    model = find_model(row.params["model"])
    bucket = Bucket("decode", row.params["batch"], 1, KV_BUCKET - 1)
    return predictor.forward_ns(model.shape, model.vocab, model.tied, bucket, 1, Stack(device_loop=True))


# Tokens of the cache that the reciprocating-engine reads for one sequence, however few are in it.
KV_BUCKET = 1024


def main(chip: str) -> None:
    """Print every fitted constant beside what stands in the YAML files.

    Raises:
        ConfigError: there are no calibration rows for `chip`.
    """
    constants = load_constants(chip)
    if chip != FITTED:
        raise ConfigError(f"nothing is fitted for {chip}", f"all calibration rows are of {FITTED}")
    rows = {row.id: row for row in read_rows()}
    for name, group in GROUPS.items():
        print(f"{name}: {len(group.rows)} rows")
        for key, (value, low, high) in fit(group, rows, constants).items():
            old = constants.entries[key].value
            print(f"  {key}: {value:.4g}, leaving one out {low:.4g} to {high:.4g}; in the file {old}")


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else FITTED)
    except ConfigError as error:
        sys.exit(str(error))
