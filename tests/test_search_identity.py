"""What a sweep is: differences are named key by key, and edited code is noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.search import identity
from overlap.search.identity import CORE, HASH_DIGITS, PACKAGES, code_hash, differences, in_words

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
IDENTITIES = st.dictionaries(st.sampled_from("uvw"), VALUES, max_size=3)


@given(IDENTITIES, IDENTITIES)
def test_there_is_a_difference_exactly_where_something_differs(
    before: dict[str, object], now: dict[str, object]
) -> None:
    assert bool(differences(before, now)) == (before != now)
    assert differences(before, before) == []
    swapped = [line.split(" ", 1)[0] for line in differences(now, before)]
    assert swapped == [line.split(" ", 1)[0] for line in differences(before, now)]


def test_differences_name_the_key_and_both_values() -> None:
    before = {"a": {"b": 1, "c": [1, 2]}, "d": "x" * 99, "e": 1}
    now = {"a": {"b": 2, "c": [1, 2], "n": True}, "d": "y", "e": 1}
    assert differences(before, now) == ["a.b 1 → 2", "a.n nothing → True", f"d {'x' * 60}… → y"]


def test_many_differences_fit_a_line() -> None:
    assert in_words([str(n) for n in range(8)]) == "0; 1; 2; 3; 4; 5; and 2 more"
    assert in_words(["0", "1"]) == "0; 1"


# -- code ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The deciding packages copied, as an installation elsewhere would have them; `code_hash` looks there."""
    folders = {name: tmp_path / name for name in (CORE, *PACKAGES)}
    for name, target in folders.items():
        shutil.copytree(identity._folder(name), target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "_folder", folders.__getitem__)
    code_hash.cache_clear()
    yield tmp_path
    code_hash.cache_clear()


def hash_now() -> str:
    code_hash.cache_clear()
    return code_hash()


def test_the_hash_is_the_same_in_another_place_and_process(copied: Path) -> None:
    """A checkout and an installed copy agree; byte code, times of files and their order on disk do not count."""
    command = "from overlap.search.identity import code_hash; print(code_hash())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert hash_now() == done.stdout.strip()
    assert len(hash_now()) == HASH_DIGITS
    (copied / "overlap.search" / "__pycache__").mkdir()
    (copied / "overlap.search" / "__pycache__" / "sweep.cpython-311.pyc").write_bytes(b"x")
    (copied / "overlap.search" / "sweep.py").touch()
    assert hash_now() == done.stdout.strip()


@pytest.mark.parametrize(
    "file",
    [
        "overlap/split.py",
        "overlap.kernels/attention.py",
        "overlap.devices/gaudi/ops.yaml",
        "overlap.search/sweep.py",
        "overlap.capture/edges.py",
    ],
)
def test_an_edit_is_noticed(copied: Path, file: str) -> None:
    before = hash_now()
    path = copied / file
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    edited = hash_now()
    path.unlink()
    gone = hash_now()
    path.write_bytes(content)
    assert len({before, edited, gone}) == 3
    assert hash_now() == before


def test_a_renamed_file_is_noticed(copied: Path) -> None:
    before = hash_now()
    path = copied / "overlap.search" / "sweep.py"
    path.rename(path.with_name("swept.py"))
    assert hash_now() != before
