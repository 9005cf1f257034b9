"""The JSON Schema of a tuned config, for editors and for other programs; made from the structs.

    python -m overlap.serve.tuned_schema [path]     # writes tuned.schema.json beside this file, or to `path`

It says what one value may be. What ties values together (units, a feasible split) only `tuned_rules` can tell.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from overlap.files import write_atomic
from overlap.serve.tuned import SCHEMA, Tuned
from overlap.serve.tuned_rules import EVIDENCE, ORDERS
from overlap.serve.verdict import VERDICTS
from overlap.split import CHOICES
from overlap.workload import DTYPE_BYTES, PHASES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE = Path(__file__).with_name("tuned.schema.json")
# Structs that are dataclasses: the loader wants all of their fields, and no others.
WHOLE = ("ModelShape", "Bucket", "Split")
FRACTION = {"minimum": 0, "maximum": 1}
AT_LEAST_0, AT_LEAST_1 = {"minimum": 0}, {"minimum": 1}
POSITIVE = {"exclusiveMinimum": 0}
BOUNDS: dict[str, dict[str, dict[str, Any]]] = {
    "Tuned": {"schema": {"const": SCHEMA}, "tensor_parallel": AT_LEAST_1, "window_layers": AT_LEAST_1},
    "TunedDevice": {"evidence": {"enum": list(EVIDENCE)}},
    "ModelShape": {
        **dict.fromkeys(("hidden", "heads", "kv_heads", "head_dim", "ffn", "layers"), AT_LEAST_1),
        **dict.fromkeys(("norm_eps", "rope_theta"), POSITIVE),
        "dtype": {"enum": list(DTYPE_BYTES)},
    },
    "Bucket": {"phase": {"enum": list(PHASES)}, "batch": AT_LEAST_1, "query": AT_LEAST_1, "context": AT_LEAST_0},
    "Split": {
        **{name: {"enum": list(values)} for name, values in CHOICES.items()},
        **dict.fromkeys(("chunks", "head_groups"), AT_LEAST_1),
        **dict.fromkeys(("lag", "query_tile", "kv_tile", "layers_per_graph"), AT_LEAST_0),
    },
    "Spread": {"median": POSITIVE, "low": AT_LEAST_0},
    "Busy": dict.fromkeys(("mme", "tpc", "both", "idle"), FRACTION),
    "Errors": dict.fromkeys(("rel_l2", "baseline_rel_l2"), AT_LEAST_0),
    "Attribution": dict.fromkeys(("work", "tiling", "order", "overlap"), POSITIVE),
    "Alternative": {"order": {"enum": list(ORDERS)}},
    "Verified": {
        "verdict": {"enum": list(VERDICTS)},
        "evidence": {"enum": list(EVIDENCE)},
        "tokens": AT_LEAST_1,
        "rounds": AT_LEAST_1,
    },
    "Entry": {
        "evidence": {"enum": list(EVIDENCE)},
        "order": {"enum": list(ORDERS)},
        "bound_us": POSITIVE,
        "samples": AT_LEAST_1,
        **dict.fromkeys(("peak_bytes", "baseline_peak_bytes"), AT_LEAST_0),
    },
}


def schema() -> dict[str, Any]:
    """The schema as plain values."""
    made = msgspec.json.schema(Tuned)
    for name, one in made["$defs"].items():
        one["description"] = " ".join(one["description"].partition("\n\n")[0].split())
        for field, bounds in BOUNDS.get(name, {}).items():
            one["properties"][field] |= bounds
        if name in WHOLE:
            one |= {"required": list(one["properties"]), "additionalProperties": False}
    # The open end of an interval.
    made["$defs"]["Spread"]["properties"]["high"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    return {"$schema": DIALECT, "title": SCHEMA, **made}


def write(path: Path = FILE) -> Path:
    """Write the schema; the same schema gives the same file."""
    return write_atomic(path, (json.dumps(schema(), indent=1) + "\n").encode())


if __name__ == "__main__":
    print(write(*map(Path, sys.argv[1:2])))
