"""The files of a validation: `validation.json`, and the page of `validate_page.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overlap import __version__
from overlap.app.config import ValidateRoot
from overlap.commands.validate_page import EVIDENCE, page
from overlap.devices.gaudi.validation.directions import Direction
from overlap.devices.gaudi.validation.evaluate import Outcome, Validation
from overlap.devices.gaudi.validation.groups import meaning
from overlap.files import write_atomic

SCHEMA = "overlap.validation/1"


def write_validation(result: Validation, root: ValidateRoot, run_dir: Path) -> None:
    """Write both; raises `RunDirError`."""
    text = json.dumps(content(result, root), indent=1, allow_nan=False)
    write_atomic(run_dir / "validation.json", text.encode())
    write_atomic(run_dir / "validation.html", page(result, root).encode())


def content(result: Validation, root: ValidateRoot) -> dict[str, Any]:
    """What `validation.json` says; errors, MAPE and bias are fractions."""
    agree = [one for one in result.directions if one.agrees]
    return {
        "schema": SCHEMA,
        "evidence": EVIDENCE,
        "device": result.chip,
        "model": {"name": result.model, "version": result.version, "switched": root.device.gaudi.switched()},
        "source": root.rows or "shipped",
        "groups": {
            name: {
                "mape": group.mape,
                "bias": group.bias,
                "n": group.n,
                "calibration_n": group.calibration_n,
                "calibration_mape": group.calibration_mape,
                "meaning": meaning(name),
            }
            for name, group in result.groups.items()
        },
        "directions": {
            "n": len(result.directions),
            "agree": len(agree),
            "comparisons": [_direction(one) for one in result.directions],
        },
        "not_expressible": {reason: {"n": len(ids), "ids": list(ids)} for reason, ids in result.refused.items()},
        "rows": [_row(one) for one in result.outcomes],
        "overlap": __version__,
    }


def _row(one: Outcome) -> dict[str, Any]:
    case, row = one.case, one.case.row
    quotient = bool(case.over)
    return {
        "id": row.id,
        "use": row.use,
        "kind": case.kind,
        "groups": list(one.groups),
        "workload": case.workload,
        "published": row.value,
        "predicted": one.value,
        "unit": row.unit,
        "published_ns": None if quotient else case.published,
        "predicted_ns": None if quotient else one.predicted,
        "interval_ns": None if quotient or one.low is None else [one.low, one.high],
        "error": one.error,
        "assumed": list(case.assumed),
        "source": row.source,
        "url": row.url,
        "section": row.section,
        "confidence": row.confidence,
    }


def _direction(one: Direction) -> dict[str, Any]:
    return {
        "switch": one.switch,
        "ids": list(one.ids),
        "workload": one.workload,
        "published": one.published,
        "predicted": one.predicted,
        "agrees": one.agrees,
        "calibration": one.calibration,
        "assumed": list(one.assumed),
    }
