"""The process that holds the card: it hangs, it dies, its parent is killed or interrupted. All of it for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overlap.devices.hpu.child import Child
from overlap.devices.hpu.environment import child_environment
from overlap.devices.hpu.runnable import HpuRunnable
from overlap.devices.hpu.settings import HpuConfig
from overlap.errors import DeviceBusyError, DeviceError, OpFailedError
from overlap.kernels.capture import capture
from overlap.split import Split
from tests.hpu import TIMEOUT_S, TINY, Double, Subject

SPLIT = Split(chunks=4, masked_blocks="skip")
# Matrix nodes from which on a program hangs or crashes: the unsplit one has 12, the split one 48.
LARGE = 40


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject()


def gone(pid: int) -> bool:
    """Whether a process has ended, waiting a little for it; one that nobody has waited for yet has ended too."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def pid_of(child: Child) -> int:
    assert child._process is not None
    return child._process.pid


def test_a_hung_program_is_ended_and_the_rest_goes_on(double: Double, subject: Subject) -> None:
    double.card("hang", large=LARGE)
    device = double.open(timeout_s=30.0)
    sound = subject.prepare(device)
    before, pid = sound.time(2), pid_of(device.child)
    with pytest.raises(OpFailedError, match="prepare did not end within 30 s; its process was ended"):
        subject.prepare(device, SPLIT)
    assert gone(pid)
    assert sound.time(2) == before, "prepared anew in a new process"
    assert pid_of(device.child) != pid


def test_what_failed_once_is_not_tried_again(double: Double, subject: Subject) -> None:
    double.card("crash", large=LARGE)
    device = double.open()
    program = capture(subject.workload, SPLIT)
    runnable = HpuRunnable(device, program, range(len(program.ops)), subject.inputs)
    for _ in range(2):
        with pytest.raises(OpFailedError, match="ended with 139"):
            runnable.time(1)
    assert device.child.generation == 1, "nothing was started for a second try"


def test_a_program_that_ends_the_process_is_named_and_the_rest_goes_on(double: Double, subject: Subject) -> None:
    double.card("crash", large=LARGE)
    device = double.open()
    sound = subject.prepare(device)
    before = sound.time(1)
    with pytest.raises(OpFailedError, match="the process with the card ended with 139 during prepare"):
        subject.prepare(device, SPLIT)
    assert sound.time(1) == before


def test_a_process_that_is_killed_says_by_which_signal(double: Double, subject: Subject) -> None:
    device = double.open()
    runnable = subject.prepare(device)
    os.kill(pid_of(device.child), signal.SIGKILL)
    with pytest.raises(OpFailedError, match="ended by signal 9 during time"):
        runnable.time(1)


def test_a_bridge_that_cannot_be_imported_shows_what_it_printed(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "habana_frameworks" / "torch"
    broken.mkdir(parents=True)
    (broken.parent / "__init__.py").touch()
    (broken / "__init__.py").touch()
    (broken / "core.py").write_text("raise OSError('libSynapse.so: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"libSynapse.so: cannot open shared object file"):
        double.open()


def test_closing_lets_go_of_the_card_at_once(double: Double) -> None:
    device = double.open()
    pid, folder = pid_of(device.child), device.child.folder
    device.close()
    assert gone(pid)
    assert not folder.exists()


def test_memory_of_a_program_that_nobody_holds_is_given_back(double: Double, subject: Subject) -> None:
    device = double.open()
    sent: list[str] = []
    ask = device.child.ask
    device.child.ask = lambda name, *rest: (sent.append(name), ask(name, *rest))[1]  # type: ignore[method-assign]
    first = subject.prepare(device)
    number = first._number
    del first
    second = subject.prepare(device)
    assert sent[-2:] == ["forget", "prepare"]
    assert second._number > number


def test_inputs_are_copied_once_per_process(double: Double, subject: Subject) -> None:
    device = double.open()
    sent: list[str] = []
    ask = device.child.ask
    device.child.ask = lambda name, *rest: (sent.append(name), ask(name, *rest))[1]  # type: ignore[method-assign]
    for _ in range(2):
        subject.prepare(device).time(1)
    assert sent.count("inputs") == 1
    device.child.kill()
    subject.prepare(device)
    assert sent.count("inputs") == 2


def test_the_child_ends_when_its_parent_is_killed_even_in_a_hung_program(double: Double, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    double.card("hang", large=1, hangs=hangs)
    code = """
import sys
from tests.test_hpu_child import pid_of
from tests.hpu import Subject
from overlap.devices.config import DeviceConfig
from overlap.devices.hpu.device import HpuDevice
from overlap.devices.hpu.runnable import HpuRunnable
from overlap.devices.hpu.settings import HpuConfig

device = HpuDevice(DeviceConfig(kind="hpu", hpu=HpuConfig(mode="lazy")))
print(pid_of(device.child), flush=True)
Subject().prepare(device)
"""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{root}"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        _wait_for(hangs)
        parent.kill()
    assert gone(pid)


def test_ctrl_c_in_the_middle_of_a_capture_ends_both(double: Double, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    double.card("hang", large=1, hangs=hangs)
    command = [sys.executable, "-m", "overlap", "sweep", "device=hpu", "device.hpu.mode=lazy_graphs", *TINY]
    command += [f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as sweep:  # fmt: skip
        pid = _wait_for_child(sweep.pid)
        _wait_for(hangs)
        os.killpg(sweep.pid, signal.SIGINT)
        _, err = sweep.communicate(timeout=TIMEOUT_S)
    assert sweep.returncode == 130
    assert "overlap: interrupted" in err
    assert "Traceback" not in err
    assert gone(pid)
    assert not list(tmp_path.glob("overlap-hpu-*"))


def _wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {path}")


def _wait_for_child(parent: int) -> int:
    """The id of the process with the card, once it is there."""
    for _ in range(600):
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
                command = stat.with_name("cmdline").read_bytes()
            except OSError:
                continue
            if text.rpartition(")")[2].split()[1] == str(parent) and b"overlap.devices.hpu.worker" in command:
                return int(stat.parent.name)
        time.sleep(0.1)
    raise AssertionError("no process with the card")


def test_requests_that_raise_leave_the_process_as_it_was(double: Double) -> None:
    config = HpuConfig(mode="lazy")
    child = Child(config, child_environment(config), TIMEOUT_S)
    try:
        child.start()
        pid = pid_of(child)
        with pytest.raises(OpFailedError, match="time failed in the process with the card: KeyError"):
            child.ask("time", 99, 1)
        assert child.ask("describe")["cards"] == 1
        assert pid_of(child) == pid
    finally:
        child.close()


def test_a_card_that_is_not_free_at_once_is_waited_for(
    double: Double, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = double.open()
    runnable = subject.prepare(device)
    before, waits = runnable.time(1), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        device.child.environment["DOUBLE"] = ""

    device.child.kill()
    device.child.environment["DOUBLE"] = "busy"
    monkeypatch.setattr("overlap.devices.hpu.child.time.sleep", wait)
    assert runnable.time(1) == before
    assert len(waits) == 1


def test_a_card_that_stays_taken_leaves_no_process_behind(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    device = double.open()
    device.child.kill()
    device.child.environment["DOUBLE"] = "busy"
    monkeypatch.setattr("overlap.devices.hpu.child.RECLAIM_S", 0.0)
    for _ in range(2):
        with pytest.raises(DeviceBusyError, match="in use by another process"):
            device.child.start()
        assert device.child._process is None


def test_the_folder_where_it_is_started_is_not_looked_into(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "overlap").mkdir()
    (tmp_path / "overlap" / "__init__.py").write_text("raise ImportError('another overlap')\n")
    monkeypatch.chdir(tmp_path)
    assert double.open().info.kind == "hpu"


def test_graphs_of_a_program_that_nobody_holds_are_freed(double: Double) -> None:
    code = """
    import gc, weakref
    from overlap.devices.hpu.modes import ready
    from overlap.devices.hpu.service import Prepared, Service
    from overlap.kernels.capture import capture
    from overlap.split import Split
    from tests.hpu import Subject

    subject = Subject()
    service = Service(config)
    program = capture(subject.workload, Split())
    service._inputs = subject.inputs
    service.prepare(1, program, range(len(program.ops)))
    held = weakref.ref(service._prepared[1].ready.parts[0][1])
    cleared, clear = [], held().clear_cache
    held().clear_cache = lambda: (cleared.append(1), clear())
    gc.disable()
    service.forget(1)
    print(held() is None, len(cleared))
    """
    assert double.run(code, mode="lazy_graphs") == "True 1"


def test_a_process_that_was_started_anew_has_sound_gates(double: Double, subject: Subject) -> None:
    device = double.open()
    runnable = subject.prepare(device)
    runnable.time(1)
    device.child.kill()
    assert all(gate.passed for gate in runnable.gates().values())


def test_ctrl_c_is_not_for_the_process_with_the_card(double: Double, subject: Subject) -> None:
    """A signal in the middle of a capture would leave the card in an unknown state."""
    device = double.open()
    runnable = subject.prepare(device)
    before = runnable.time(1)
    os.kill(pid_of(device.child), signal.SIGINT)
    assert runnable.time(1) == before
    assert device.child.generation == 1


def test_whoever_interrupts_a_request_ends_what_it_asked_for_at_once(
    double: Double, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = double.open()
    runnable = subject.prepare(device)
    pid, connection = pid_of(device.child), device.child._connection
    assert connection is not None

    def interrupted(_: float) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "poll", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runnable.time(1)
    assert device.child._process is None
    assert gone(pid)
