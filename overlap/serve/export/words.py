"""Texts of an export for the operator: heads of files, the script that serves, and a page that says what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from overlap.serve.export.environment import BUCKETS, CONFIG, TUNED_JSON, words_of
from overlap.serve.export.plan import Level, Limits, Plan
from overlap.serve.tuned import TunedDevice

ENVIRONMENT, SCRIPT = "overlap.env", "serve.sh"
MODEL = "MODEL"


def one_line(text: str) -> str:
    """A text that stands in a comment and is no command there."""
    return " ".join(text.split()).replace("vllm serve", "vllm-serve")


def measured(device: TunedDevice) -> str:
    """What the numbers are, in a sentence."""
    name = one_line(device.name)
    if device.evidence == "simulated":
        return f"SIMULATED on {name}: no time was measured on a card. Compare with the untouched server first."
    if device.kind == "host":
        return f"MEASURED ON A CPU, {name}: NOT FOR A CARD, what is fast there says nothing about a Gaudi."
    return f"Measured on {name}."


def header(plan: Plan, level: Level, what: str) -> list[str]:
    """Comment lines that every file of a level begins with."""
    source = plan.source
    return [
        f"{what}, level {level.level}, by overlap {source.overlap} on {source.date}",
        f"of {one_line(source.file)}, sha256 {source.sha256}",
        f"for {one_line(plan.model.name)}, {plan.tensor_parallel} card{'s' * (plan.tensor_parallel > 1)}",
        measured(plan.device),
        *(f"WARNING: {one_line(warning)}" for warning in plan.warnings),
    ]


def environment_header(plan: Plan, level: Level) -> list[str]:
    """The head of an environment file; its last line is the command that goes with it."""
    files = f"{BUCKETS} and {TUNED_JSON} are" if level.level else f"{BUCKETS} is"
    return [
        *header(plan, level, "Environment"),
        f"{files} named as seen from this folder: start the server here, or by {SCRIPT}",
        *(one_line(cost) for cost in level.costs),
        " ".join(["vllm serve", shlex.quote(plan.serve), *words_of(level.flags)]),
    ]


def script(plan: Plan, level: Level) -> str:
    """`serve.sh`: sets the environment and starts the server, wherever it is called from."""
    asks = f"set MODEL to the name or folder of {one_line(plan.model.name)}"
    model = shlex.quote(plan.serve) if plan.serve != MODEL else f'"${{MODEL:?{_plain(asks)}}}"'
    lines = [
        "#!/bin/sh",
        *(f"# {one}" for one in header(plan, level, "Start of a server")),
        "set -eu",
        'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)',
        "set -a",
        f'. "$here/{ENVIRONMENT}"',
        f'VLLM_BUCKETING_FROM_FILE="$here/{BUCKETS}"',
        *([f'{CONFIG}="$here/{TUNED_JSON}"'] if level.level else []),
        "set +a",
        " ".join(["exec vllm serve", model, *words_of(level.flags), '"$@"']),
    ]
    return "".join(f"{line}\n" for line in lines)


def _plain(text: str) -> str:
    """Text that means nothing to a shell inside of double quotes and braces."""
    return "".join(one for one in text if one.isalnum() or one in " .,_-")


def page(plan: Plan) -> str:
    """`README.txt`."""
    return "\n".join([*_beginning(plan), *_steps(plan), *_levels(plan), *_buckets(plan), *_checks(plan)]) + "\n"


def _beginning(plan: Plan) -> Iterator[str]:
    yield f"{plan.model.name} on vLLM for Gaudi, out of {plan.source.file}"
    yield ""
    yield measured(plan.device)
    for warning in plan.warnings:
        yield f"WARNING: {warning}"
    yield f"Mode of the server: {plan.mode}. Rules of the settings: {plan.rules}."
    yield f"{sizes(plan.limits).capitalize()}."
    yield ""


def sizes(limits: Limits) -> str:
    """The sizes of the server, and how to change them."""
    users = f"{limits.max_num_seqs} sequences" if limits.max_num_seqs else "as many sequences as vLLM likes"
    return (
        f"sizes of the server, the least that hold all buckets: {limits.max_model_len} tokens per sequence, "
        f"{limits.max_num_batched_tokens} per step, {users}; more by max_model_len=, max_num_batched_tokens=, "
        "max_num_seqs= of overlap export"
    )


def _steps(plan: Plan) -> Iterator[str]:
    best = "level1" if plan.level(1) else "level0"
    yield "What to do"
    yield f"  Copy the folder {best} to the server and run   sh {best}/{SCRIPT}"
    yield f"  With docker: --env-file {best}/{ENVIRONMENT}; files named in it need their paths inside of the container."
    if plan.level(1):
        yield "  level1 needs this program in the server's Python environment (pip install overlap): vLLM loads its"
        yield "  entry point by itself. Where VLLM_PLUGINS is set, `overlap` must be in it, beside those of Gaudi."
        yield "  level0 needs settings alone, and is what to use where nothing may be installed."
    else:
        if not any("no level 1" in warning for warning in plan.warnings):
            yield "  There is no level1: a plug-in would not make any bucket faster than these settings do."
    yield ""


def _levels(plan: Plan) -> Iterator[str]:
    for level in plan.levels:
        yield f"level{level.level}: {over_stack(level)}"
        for name, value in level.settings.items():
            yield f"  {name}={value}"
        for cost in level.costs:
            yield f"  - {cost}"
        yield ""


def over_stack(level: Level) -> str:
    """What a level gains, in a sentence."""
    if level.over_stack is None:
        return "nobody timed the untouched stack in every bucket, so what it gains is not known"
    return f"{level.over_stack:.3f}x the speed of the untouched stack, geometric mean of the buckets"


def _buckets(plan: Plan) -> Iterator[str]:
    yield "Buckets: time of what was kept; then what each level runs, and by how much it is slower (+) or faster (-)"
    for entry in plan.entries:
        yield f"  {entry.bucket}: kept {entry.kept_us:.6g} us, {entry.kept}"
        for number, option in ((1, entry.level1), (0, entry.level0)):
            if option is not None:
                note = f" ({option.note})" if option.note else ""
                yield f"    level {number}: {option.what}, {loss(option.loss)}{note}"
        for reason in [*entry.reasons, *entry.notes]:
            yield f"    - {reason}"
    yield ""


def loss(value: float | None) -> str:
    """`+2.3 %`."""
    return "not known" if value is None else f"{value * 100:+.1f} %"


def _checks(plan: Plan) -> Iterator[str]:
    yield "Checks"
    yield "  VLLM_FULL_WARMUP=true once: the server then stops at a shape that buckets.txt does not hold."
    if plan.level(1):
        yield "  The log of level1 says `overlap: prefill of ... may run by ...` at the start; a server that does"
        yield "  not say so runs untuned. At its end it says how many calls ran tuned, and why others did not."
    yield "  overlap export --check FILE looks at an environment file again after it was edited."
