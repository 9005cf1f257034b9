"""The optional hardware profile: the card's own trace units, set up by the vendor's `hl-prof-config`.

It shows what PyTorch's profiler does not: slices, bundles and the module path of every node. The tool writes a config
into a folder of its own home, never into the user's; the process with the card is told of it through its environment,
and every profiled run leaves an `.hltv` archive or a CSV file in the folder, which `traces` reads.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from overlap.errors import DeviceError, TraceError
from overlap.traces.read import read_trace
from overlap.traces.trace import Trace

log = logging.getLogger(__name__)
TOOL = "hl-prof-config"
# Names of nodes and of what was fused into them; files per run.
OPTIONS = ("--use-template", "profile_api", "--fuser", "on", "--trace-analyzer", "on", "--invoc", "hltv,csv")
CONFIG = Path(".habana") / "prof_config.json"
# The best first: an archive holds more than the table of its events.
WRITTEN = ("*.hltv", "*_hw_prof_accel*.csv")
TIMEOUT_S = 60.0


class HardwareProfile:
    """A folder that the card's profiler writes to.

    Raises:
        DeviceError: the vendor's tool is not there or does not work.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        tool = shutil.which(TOOL, path=environment.get("PATH", os.defpath))
        if tool is None:
            raise DeviceError(f"{TOOL} is not on this machine", "device.hpu.hardware_profile=false")
        folder.mkdir(parents=True, exist_ok=True)
        self._run([tool, *OPTIONS, "-o", str(folder)], {**environment, "HOME": str(folder)})
        self.environment = {"HABANA_PROFILE": "1", "HABANA_PROFILE_WRITE_HLTV": "1"}
        if (folder / CONFIG).is_file():
            self.environment["HABANA_PROF_CONFIG"] = str(folder / CONFIG)
        self._seen: set[Path] = set()

    def _run(self, command: list[str], environment: Mapping[str, str]) -> None:
        try:
            done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"{TOOL} did not run: {error}", "device.hpu.hardware_profile=false") from error
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[:200]
            raise DeviceError(f"{TOOL} failed with {done.returncode}: {said}", "device.hpu.hardware_profile=false")

    def begin(self) -> None:
        """Take note of what is there before a run."""
        self._seen = set(self._files())

    def newest(self) -> Trace | None:
        """What the run since `begin` has left; None if there is nothing that can be read."""
        for path in self._files():
            if path not in self._seen:
                try:
                    return read_trace(path)
                except TraceError as error:
                    log.warning("hardware profile %s: %s", path.name, error)
        log.warning("no hardware profile was written; the lanes are those of PyTorch's profiler")
        return None

    def _files(self) -> list[Path]:
        """All files, archives first, the newest of each kind first."""
        found = []
        for pattern in WRITTEN:
            found += sorted(self._folder.rglob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return found
