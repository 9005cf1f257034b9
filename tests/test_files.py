"""Files are whole or not there, also behind a link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overlap.errors import RunDirError
from overlap.files import write_atomic, write_atomic_blocks


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Configs under version control are linked to from where they are used."""
    (tmp_path / "kept").mkdir()
    real, link = tmp_path / "kept" / "real", tmp_path / "link"
    link.symlink_to(real)
    for content in (b"one", b"two"):
        write_atomic(link, content)
        assert link.is_symlink()
        assert real.read_bytes() == content
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["kept", "link", "real"]


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    write_atomic(tmp_path / "file", b"whole")
    with pytest.raises(KeyboardInterrupt):
        write_atomic_blocks(tmp_path / "file", blocks())
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunDirError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below", b"")
