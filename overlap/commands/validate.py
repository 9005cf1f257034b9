"""`overlap validate`: what a modelled device says to measurements that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overlap.app.config import ValidateRoot, from_config
from overlap.devices.gaudi.settings import GaudiConfig


def run(config: Any, run_dir: Path) -> None:
    """Validate as `config` says, writing to `run_dir`."""
    root = from_config(ValidateRoot, config)

    from rich.console import Console

    from overlap.commands.validate_files import write_validation
    from overlap.commands.validate_tables import validation_tables
    from overlap.devices.gaudi.constants import load_constants
    from overlap.devices.gaudi.predict import ModelPredictor
    from overlap.devices.gaudi.validation.cases import make_cases
    from overlap.devices.gaudi.validation.evaluate import evaluate
    from overlap.devices.gaudi.validation.rows import read_rows
    from overlap.errors import ConfigError

    chip = root.device.kind
    rows = read_rows(Path(root.rows) if root.rows else None)
    settings = root.device.gaudi
    if settings.mode != GaudiConfig().mode:
        raise ConfigError(
            "device.gaudi.mode cannot be set here", "every row is predicted in the mode it was measured in"
        )
    constants = load_constants(chip).replaced(settings.constants)
    result = evaluate(make_cases(rows, chip), ModelPredictor(chip, constants, settings))
    write_validation(result, root, run_dir)
    console = Console()
    for table in validation_tables(result, root.worst):
        console.print(table.title, soft_wrap=True, highlight=False)
        table.title = None
        console.print(table, "")
    console.print(f"files in {run_dir}; open {run_dir / 'validation.html'}", soft_wrap=True, highlight=False)
