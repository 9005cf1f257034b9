"""The commands, one small file each: compose → build → run → print → return.

`COMMANDS` is the table that the command line dispatches by. The modules are imported when a command runs, so that
help and mistakes are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: as it is typed; also the name of its config and of its module.
        summary: one line of help.
        groups: option groups of its config.
        paths: values of its config that are paths, which may be typed as a shell gives them.
        plain: arguments (`name=VALUE`) of a command without a config, with their meaning; those do not go through
            Hydra and leave no run directory.
        examples: whole command lines.
        times: whether a plain command times on a device, as those with a group `device` do.
    """

    name: str
    summary: str
    groups: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    plain: Mapping[str, str] | None = None
    examples: tuple[str, ...] = ()
    times: bool = False

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
            ("workload", "device", "space", "search", "buckets"),
            ("records", "buckets.file"),
            examples=(
                "overlap sweep workload=llama_3_2_1b_prefill workload.bucket.query=1024",
                "overlap sweep workload.config_json=path/to/config.json search.final_rounds=31",
                "overlap sweep -m workload=qwen2_5_0_5b_prefill,qwen2_5_0_5b_decode",
                "overlap sweep workload=llama_3_1_8b_prefill device=gaudi2 buckets=exponential",
            ),
        ),
        Command(
            "profile",
            "measure how busy the engines are for one split",
            ("workload", "device"),
            examples=("overlap profile split.chunks=4 split.lag=1 order=list",),
        ),
        Command(
            "analyze",
            "say where the time of a trace went, and what could be saved",
            paths=("trace", "diff", "rules"),
            examples=(
                "overlap analyze trace=path/to/worker.pt.trace.json.gz",
                "overlap analyze trace=after.pt.trace.json.gz diff=before.pt.trace.json.gz",
                "overlap analyze trace=folder/of/ranks window=all",
            ),
        ),
        Command(
            "tensorboard",
            "open TensorBoard on a run",
            plain={"run": "a run directory, or a folder of them", "port": "port to serve on (default 6006)"},
            examples=("overlap tensorboard run=outputs/sweep/2026-01-31/12-00-00",),
        ),
        Command(
            "devices",
            "list the devices, or the constants of a modelled one",
            plain={"device": "gaudi2 or gaudi3: list every constant of the model and where it comes from"},
            examples=("overlap devices device=gaudi2",),
        ),
        Command(
            "doctor",
            "say what this machine is, what works on it, and what to set",
            plain={
                "device": "device to look at (default auto: the card where there are signs of one, else the host)",
                "mode": "look at one mode of a card only: compile, lazy, lazy_graphs or eager",
            },
            examples=("overlap doctor", "overlap doctor device=hpu mode=lazy_graphs"),
        ),
        Command(
            "validate",
            "compare a modelled device with published measurements",
            ("device",),
            ("rows",),
            examples=("overlap validate device=gaudi2", "overlap validate device=gaudi3 rows=path/to/rows.csv"),
        ),
        Command(
            "collect",
            "merge what many workers found into tuned configs",
            plain={
                "records": "the folder that workers wrote to (overlap sweep records=<dir>), or one of finished runs",
                "into": "file to write (default tuned.yaml); with several models or devices one file each",
            },
            examples=("overlap collect records=shared/records into=tuned.yaml",),
        ),
        Command(
            "report",
            "write a tuned config as a page for people",
            plain={"tuned": "a tuned config", "into": "file to write (default: <its name>.report.html beside it)"},
            examples=("overlap report tuned=outputs/sweep/2026-01-31/12-00-00/tuned.yaml",),
        ),
        Command(
            "verify",
            "compare a model tuned and untouched, and write the verdict into the tuned config",
            plain={
                "tuned": "a tuned config; its verdicts are written into it",
                "model": "a checkpoint's folder or name, or a folder with a config.json (default: random weights)",
                "bucket": "one bucket of it, such as 'prefill 1x2048+0' (default: all that keep a split)",
                "rounds": "runs of each way (default 7)",
                "tokens": "greedy tokens to compare (default 64)",
                "layers": "use fewer layers of the model (default: all)",
                "device": "where the model runs: cpu, cuda or hpu (default: what it was tuned on)",
            },
            times=True,
            examples=("overlap verify tuned=outputs/sweep/2026-01-31/12-00-00/tuned.yaml model=path/to/checkpoint",),
        ),
        Command(
            "export",
            "write what a serving stack takes, or check an environment file",
            plain={
                "tuned": "a tuned config",
                "target": "vllm (vLLM on Gaudi) or optimum (optimum-habana)",
                "into": "folder to write (default: beside the tuned config, <name>.<target>)",
                "mode": "compile or lazy (default: as the config was tuned)",
                "model": "name or folder of the model, for the serve command",
                "block_size": "tokens of a KV cache block (default 128)",
                "max_model_len": "as vLLM has it (default: the least that holds every bucket)",
                "max_num_seqs": "the same",
                "max_num_batched_tokens": "the same",
                "check": "an environment file to check instead; exit code 1 if it has errors",
            },
            examples=(
                "overlap export tuned=tuned.yaml target=vllm model=path/to/model",
                "overlap export tuned=tuned.yaml target=optimum into=for-optimum",
                "overlap export --check tuned.vllm/level0/overlap.env",
            ),
        ),
    )
}
