"""The commands, one small file each: compose → build → run → print → return.

`COMMANDS` is the table that the command line dispatches by. The modules are imported when a command runs, so that
help and mistakes are answered at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command. `groups` are the option groups of its config; a command without any takes no overrides."""

    name: str
    summary: str
    groups: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Where its `run` is."""
        return f"overlap.commands.{self.name}"


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "sweep",
            "try splits of an attention block and keep the fastest",
            ("workload", "device", "space", "search"),
            (
                "overlap sweep workload=llama_3_2_1b_prefill workload.bucket.query=1024",
                "overlap sweep workload.config_json=path/to/config.json search.final_rounds=31",
                "overlap sweep -m workload=qwen2_5_0_5b_prefill,qwen2_5_0_5b_decode",
            ),
        ),
        Command(
            "profile",
            "measure how busy the engines are for one split",
            ("workload", "device"),
            ("overlap profile split.chunks=4 split.lag=1 order=list",),
        ),
        Command("devices", "list the devices and which of them are present"),
    )
}
