"""The device lock: who measures is alone, whoever waits is told for whom, and the dead hold nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overlap.devices.base import DeviceInfo
from overlap.errors import DeviceError
from overlap.search import lock
from overlap.search.lock import Owner, age, cards, device_lock, lock_path

HOST = DeviceInfo("host", "host", "measured", 1)
MODEL = DeviceInfo("gaudi3", "gaudi3", "simulated", 1)
# Takes the lock of the device named by the first argument, says so, and holds it until its input ends.
HOLDER = (
    "import sys; from overlap.devices.base import DeviceInfo; from overlap.search.lock import device_lock\n"
    "with device_lock(DeviceInfo(sys.argv[1], 'x', 'measured', 1), 'refuse'):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test only, and no waiting longer than needed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(lock, "POLL_S", 0.01)


@contextmanager
def held_elsewhere(kind: str = "host") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a device."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_is_refused_with_the_owner_and_its_age() -> None:
    with held_elsewhere() as process:
        with pytest.raises(DeviceError) as caught, device_lock(HOST, "refuse"):
            raise AssertionError("nobody may come in")
        message = str(caught.value)
        assert f"device host is in use by pid {process.pid} on {socket.gethostname()} for " in message
        assert "it runs: -c host" in message
        with device_lock(DeviceInfo("cuda", "x", "measured", 1), "refuse"):
            pass  # another device is free


def test_whoever_waits_is_told_once_and_gets_it_from_a_dead_owner() -> None:
    """`kill -9` leaves the file and its owner's name behind, and neither counts."""
    said: list[str] = []

    with held_elsewhere() as process:

        def say(line: str) -> None:
            said.append(line)
            process.send_signal(signal.SIGKILL)

        with device_lock(HOST, "wait", 60.0, say):
            owner = json.loads(lock_path("host", "").read_text())
    assert len(said) == 1
    assert said[0].startswith(f"device host is in use by pid {process.pid} on ")
    assert said[0].endswith(" s: waiting")
    assert owner["pid"] == os.getpid()
    assert lock_path("host", "").read_text() == ""


def test_waiting_ends() -> None:
    with held_elsewhere():
        begin = time.monotonic()
        with pytest.raises(DeviceError, match="is in use by pid"), device_lock(HOST, "wait", 0.05):
            raise AssertionError("nobody may come in")
        assert time.monotonic() - begin >= 0.05


def test_the_lock_is_given_back_after_an_error() -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), device_lock(HOST, "refuse"):
            raise ZeroDivisionError


def test_one_process_cannot_time_twice_either() -> None:
    for policy in ("refuse", "wait"):  # it would wait for itself
        with device_lock(HOST, "refuse"), pytest.raises(DeviceError, match="in use"), device_lock(HOST, policy):
            raise AssertionError("nobody may come in")


def test_models_are_never_locked(tmp_path: Path) -> None:
    with device_lock(MODEL, "refuse"), device_lock(MODEL, "refuse"):
        assert not (tmp_path / "cache").exists()


def test_the_config_says_what_a_job_does(cli: Any) -> None:
    for override, words in (("lock=ask", "one of wait, refuse"), ("lock_timeout_s=-1", "0 or more")):
        assert words in cli("sweep", f"device.{override}").err


@pytest.mark.parametrize("command", ["sweep", "profile"])
def test_commands_take_the_lock(cli: Any, tmp_path: Path, command: str) -> None:
    with held_elsewhere() as process:
        answer = cli(command, "device=host", "device.lock=refuse", "hydra.run.dir=run")
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert f"device host is in use by pid {process.pid}" in answer.err
    assert "device.lock=wait" in answer.err
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".hydra", "run.log"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', "\x00", '{"pid": 1, "other": 2}'])
def test_a_file_without_an_owner_is_no_obstacle(text: str) -> None:
    """Whatever lies there, only a held lock counts; and a held one without a name is told as such."""
    path = lock_path("host", "")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with device_lock(HOST, "refuse"):
        path.write_text(text)
        with pytest.raises(DeviceError, match="in use by another job"), device_lock(HOST, "refuse"):
            raise AssertionError("nobody may come in")


def test_cards_are_locked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    card = DeviceInfo("hpu", "hpu", "measured", 1)
    monkeypatch.setenv("HABANA_VISIBLE_MODULES", "1,0")
    with device_lock(card, "refuse"):
        monkeypatch.setenv("HABANA_VISIBLE_MODULES", "2")
        with device_lock(card, "refuse"):
            pass
        monkeypatch.setenv("HABANA_VISIBLE_MODULES", "2, 1")
        with pytest.raises(DeviceError, match="device hpu card 1 is in use"), device_lock(card, "refuse"):
            raise AssertionError("nobody may come in")
    with device_lock(card, "refuse"):
        assert len(list(lock_path("hpu", "").parent.iterdir())) == 3


@pytest.mark.parametrize(
    ("kind", "environment", "expected"),
    [
        ("hpu", {"HLS_MODULE_ID": "3", "HABANA_VISIBLE_MODULES": "0,1,2,3"}, ("3",)),
        ("hpu", {"HABANA_VISIBLE_MODULES": "all"}, ("",)),
        ("hpu", {"HABANA_VISIBLE_MODULES": " 2 ,,1"}, ("1", "2")),
        ("hpu", {}, ("",)),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-8f2/1"}, ("GPU-8f2/1",)),
        ("host", {"CUDA_VISIBLE_DEVICES": "0"}, ("",)),
    ],
)
def test_cards_are_told_by_the_environment(kind: str, environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert cards(kind, environment) == expected


def test_lock_files_stay_in_their_folder() -> None:
    path = lock_path("cuda", "../../GPU 1")
    assert path.parent.name == "locks"
    assert path.name.endswith("-cuda-..-..-GPU-1.lock")


def test_a_folder_that_cannot_be_used_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(DeviceError, match="XDG_CACHE_HOME"), device_lock(HOST):
        raise AssertionError("nobody may come in")


def test_ages() -> None:
    found = [age(seconds) for seconds in (-1.0, 0.4, 59.0, 180.0, 7200.0, 200_000.0)]
    assert found == ["0 s", "0 s", "59 s", "3 min", "2 h", "2 d"]
    assert Owner(7, "x", "overlap sweep", 100.0).in_words(280.0) == "pid 7 on x for 3 min"
