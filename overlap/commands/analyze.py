"""`overlap analyze`: where the time of a trace went, and what could be saved."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from overlap.app.config import AnalyzeRoot, from_config


def run(config: Any, run_dir: Path) -> None:
    """Analyse as `config` says, writing to `run_dir`."""
    root = from_config(AnalyzeRoot, config)

    # Late, so that a mistake in the config is answered before polars is loaded.
    from rich.console import Console

    from overlap.commands.analyze_files import write_analysis
    from overlap.commands.analyze_run import analyse_all
    from overlap.commands.analyze_tables import analysis_tables

    class Output(Console):
        """Falls silent when nobody reads on: the files are written by then, so nothing has failed."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    result = analyse_all(root)
    write_analysis(result, run_dir)
    console = Output()
    for table in analysis_tables(result, console.width):
        # Apart from its table, because a title is broken to the width of that.
        console.print(table.title, soft_wrap=True, highlight=False)
        table.title = None
        console.print(table, "")
    for sentence in result.sentences:
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)
    console.print(f"files in {run_dir}", soft_wrap=True, highlight=False)
