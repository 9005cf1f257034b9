"""No file is parsed twice, and no cache gives what its file does not hold."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from overlap.traces import cache as module
from overlap.traces import read
from overlap.traces.cache import Cache
from overlap.traces.engines import EngineRules, engine_rules
from overlap.traces.read import read_trace
from overlap.traces.trace import Trace
from tests.kineto_files import ADD, GEMM, cuda_rows, document, kernel, saved


def settle() -> None:
    """Wait for what is being kept."""
    for thread in threading.enumerate():
        if thread.name == "trace cache":
            thread.join()


def get(path: Path, root: Path, rules: EngineRules | None = None) -> Trace:
    found = read_trace(path, rules, root)
    settle()
    return found


def old(path: Path) -> Path:
    """As if the file had been written a while ago."""
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were parsed."""
    names: list[str] = []
    real = read.read_kineto

    def spy(stream, *rest):  # type: ignore[no-untyped-def]
        names.append(stream.path.name)
        return real(stream, *rest)

    monkeypatch.setattr(read, "read_kineto", spy)
    return names


@pytest.mark.parametrize("make", [old, lambda path: path], ids=["by its stamp", "by its content"])
def test_the_second_time_gives_the_same_without_parsing(tmp_path: Path, parsed: list[str], make) -> None:  # type: ignore[no-untyped-def]
    path = make(saved(tmp_path / "a.json", document([*cuda_rows(), kernel(ADD, 5, -1)], SYNTHETIC="yes")))
    first, second = get(path, tmp_path / "cache"), get(path, tmp_path / "cache")
    assert parsed == ["a.json"]
    assert second.about == first.about
    assert second.about.dropped
    for name in module.TABLES:
        assert getattr(second, name).equals(getattr(first, name)), name


def test_a_copy_is_known_by_its_content(tmp_path: Path, parsed: list[str]) -> None:
    get(saved(tmp_path / "a.json", document(cuda_rows())), tmp_path / "cache")
    found = get(saved(tmp_path / "b.json", document(cuda_rows())), tmp_path / "cache")
    assert parsed == ["a.json"]
    assert found.about.source == "b.json"


def test_a_changed_file_is_read_again_even_if_its_size_and_time_are_the_same(tmp_path: Path, parsed: list[str]) -> None:
    path = saved(tmp_path / "a.json", document([kernel(ADD, 5, 1)]))
    get(path, tmp_path / "cache")
    about = path.stat()
    saved(path, document([kernel(ADD, 5, 3)]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    found = get(path, tmp_path / "cache")
    assert parsed == ["a.json", "a.json"]
    assert (found.events["end_ns"] - found.events["start_ns"]).to_list() == [3000]


def test_other_rules_and_another_schema_are_another_entry(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old(saved(tmp_path / "a.json", document([kernel(GEMM, 5, 1)])))
    get(path, tmp_path / "cache")
    mine = saved(tmp_path / "mine.yaml", "rules: [{engine: TPC, pattern: xmma}]")
    assert get(path, tmp_path / "cache", engine_rules(mine)).events["engine"].to_list() == ["TPC"]
    monkeypatch.setattr(module, "SCHEMA_VERSION", module.SCHEMA_VERSION + 1)
    get(path, tmp_path / "cache")
    assert parsed == ["a.json"] * 3


@pytest.mark.parametrize("damage", ["about.json", "events.parquet", "host.parquet"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1 but not", b'{"devices": 3}'])
def test_a_damaged_entry_is_read_from_the_file(
    tmp_path: Path, parsed: list[str], damage: str, content: bytes | None
) -> None:
    path = old(saved(tmp_path / "a.json", document(cuda_rows())))
    get(path, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"*/{damage}")
    file.unlink() if content is None else file.write_bytes(content)
    assert get(path, tmp_path / "cache").events.height == 5
    assert parsed == ["a.json"] * 2
    assert get(path, tmp_path / "cache").events.height == 5
    assert parsed == ["a.json"] * 2, "what was damaged is kept anew"


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = saved(tmp_path / "file", "x")
    assert get(saved(tmp_path / "a.json", document(cuda_rows())), blocked).events.height == 5


def test_the_entries_that_were_not_used_for_longest_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    paths = [saved(tmp_path / f"{i}.json", document([kernel(ADD, 5, i)])) for i in range(4)]
    for path in paths[:3]:
        get(path, cache)
    entries = {
        path.name: cache / Cache(cache, engine_rules().text + read.name_rules().text)._key(path) for path in paths
    }
    for age, name in enumerate(("1.json", "0.json", "2.json")):
        os.utime(entries[name], (2e9 - age, 2e9 - age))
    size = sum(file.stat().st_size for file in entries["0.json"].iterdir())
    monkeypatch.setattr(module, "MOST_BYTES", int(size * 1.5))
    get(paths[3], cache)
    assert [name for name, folder in entries.items() if folder.exists()] == ["1.json", "3.json"]


def test_a_file_that_grows_while_it_is_read_is_not_kept(
    tmp_path: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.json", document([kernel(ADD, 5, 1)]))
    real = read._read

    def slow(stream, *rest):  # type: ignore[no-untyped-def]
        found = real(stream, *rest)
        saved(path, document([kernel(ADD, 5, 1), kernel(ADD, 7, 1)]))  # the profiler goes on writing
        return found

    with monkeypatch.context() as patched:
        patched.setattr(read, "_read", slow)
        assert get(path, tmp_path / "cache").events.height == 1
    assert get(path, tmp_path / "cache").events.height == 2


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    fresh, left = (tmp_path / "cache" / name for name in ("new-fresh", "new-left"))
    for folder in (fresh, left):
        folder.mkdir(parents=True)
    old(left)
    get(saved(tmp_path / "a.json", document(cuda_rows())), tmp_path / "cache")
    assert (fresh.exists(), left.exists()) == (True, False)
