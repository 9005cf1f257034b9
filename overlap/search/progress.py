"""Progress for people: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Step = Callable[[str], None]


class Progress:
    """Reports stages of known length. `every_s` limits how often a non-terminal gets a line."""

    def __init__(self, console: Console, every_s: float = 10.0) -> None:
        self._console = console
        self._every_s = every_s

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Step]:
        """A stage of `total` steps; call the given function with a few words after each. Silent where `total` is 0."""
        if not total:
            yield lambda note: None
            return
        with self._bar(title, total) if self._console.is_terminal else self._lines(title, total) as step:
            yield step

    def say(self, text: str) -> None:
        """One line between stages."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Step]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with RichProgress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda note: bar.update(task, advance=1, note=note)
        self.say(f"{title}: done")

    @contextmanager
    def _lines(self, title: str, total: int) -> Iterator[Step]:
        begin = last = time.monotonic()
        done = 0

        def step(note: str) -> None:
            nonlocal done, last
            done += 1
            now = time.monotonic()
            if done < total and now - last < self._every_s:
                return
            last = now
            left = (now - begin) / done * (total - done)
            self.say(f"{title}: {done}/{total}, {left:.0f} s left{'; ' + note if note else ''}")

        yield step
