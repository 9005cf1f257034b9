"""The command line: `overlap <command> [overrides]`.

Contract: exit code 0 when everything that was asked for was done, 1 when `doctor` finds the device unusable or `export`
finds errors in the file that it checks, 2 and one line on stderr when the user has to change something, 130 after
Ctrl-C. Whatever shows a traceback is a defect of the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from overlap import __version__
from overlap.app.usage import command_help, program_help
from overlap.commands import COMMANDS, Command
from overlap.errors import ConfigError, OverlapError

HELP = ("-h", "--help")
# What a shell reports for a process that was ended by SIGPIPE or SIGINT.
BROKEN_PIPE, INTERRUPTED = 141, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: this process's arguments); the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # A vendor's backend would load itself with torch, take the card, and fix the mode before anybody chose one.
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except OverlapError as error:
        _say(f"overlap: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        _say("overlap: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; the flush at exit must not complain about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        print(program_help())
        return 0
    if arguments[0] == "--version":
        print(f"overlap {__version__}")
        return 0
    command = _command(arguments[0])
    rest = arguments[1:]
    if any(flag in rest for flag in HELP):
        print(command_help(command))
        return 0
    if command.times or "device" in command.groups:
        from overlap.devices.host.memory import pool_memory

        # Before anything is imported that starts threads: a thread keeps the memory arena it began with.
        pool_memory()
    return _with_hydra(command, rest) if command.plain is None else _plain(command, command.plain, rest)


def _command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    from overlap.similar import did_you_mean

    hint = did_you_mean(name, list(COMMANDS), f"there are: {', '.join(COMMANDS)}")
    if "=" in name:
        hint = f"a command comes first: overlap <{'|'.join(COMMANDS)}> {name}"
    raise ConfigError(f"there is no command {name!r}", hint)


def _plain(command: Command, known: Mapping[str, str], rest: list[str]) -> int:
    values = {}
    for argument in _joined(known, rest):
        name, equals, value = argument.partition("=")
        if not known:
            raise ConfigError(f"{command.name} takes no arguments, not {argument!r}", f"overlap {command.name}")
        if name not in known or not equals:
            hint = " ".join(f"{one}=<{one}>" for one in known)
            raise ConfigError(f"{command.name} does not take {argument!r}", f"overlap {command.name} {hint}")
        values[name] = value
    code = import_module(command.module).run(**values)
    return int(code or 0)


def _joined(known: Mapping[str, str], rest: list[str]) -> list[str]:
    """`--name value` and `--name=value` of known names as `name=value`; all else as it is."""
    found: list[str] = []
    words = iter(rest)
    for word in words:
        name, equals, _ = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known:
            found.append(word)
        elif equals:
            found.append(word.removeprefix("--"))
        elif (value := next(words, None)) is not None:
            found.append(f"{name}={value}")
        else:
            raise ConfigError(f"{word} has no value", f"{word} <{name}>, or {name}=<{name}>")
    return found


def _with_hydra(command: Command, rest: list[str]) -> int:
    from overlap.app.launch import Interrupted, launch

    try:
        return launch(command, rest)
    except Interrupted as stop:
        _say(f"overlap: interrupted{'; ' if str(stop) else ''}{stop}")
        return INTERRUPTED


def _say(line: str) -> None:
    print(line, file=sys.stderr)
