"""Fixtures that several files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from overlap.cli import main
from overlap.devices.hpu import presence
from tests.hpu import Double

# Two noisy cores: a deadline would test the machine, not the code.
settings.register_profile("overlap", deadline=None, max_examples=60)
settings.load_profile("overlap")


@dataclass(frozen=True)
class Answer:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Lines on stderr."""
        return self.err.splitlines()


@pytest.fixture(autouse=True)
def without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are the same on a Gaudi host as anywhere: its card is for whoever asks for it."""
    monkeypatch.setattr(presence, "find_spec", lambda _: None)
    monkeypatch.setattr(presence, "DEVICES", Path("/nonexistent"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Call the command line in this process, in an empty directory with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # not the cache of whoever runs the tests

    def call(*arguments: str) -> Answer:
        code = main(arguments)
        seen = capsys.readouterr()
        return Answer(code, seen.out, seen.err)

    return call


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """The double of a Gaudi's bridge, for processes that the test starts."""
    found = Double(monkeypatch)
    yield found
    found.close()
