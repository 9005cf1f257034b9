"""Arguments as they are typed, made into what Hydra's grammar takes; flags that it does not have are refused."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from hydra._internal.utils import get_args_parser

from overlap.app.launchers import check_launcher
from overlap.errors import ConfigError


def quoted(paths: Collection[str], arguments: Sequence[str]) -> list[str]:
    """`arguments` with the values of `paths` quoted, for a file may be called what Hydra's grammar would not take.

    In a multirun, commas between values have a meaning, and the values are left as they are.
    """
    if {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    found = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and name in paths and value[:1] not in ("", "'", '"'):
            escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
            argument = f"{name}='{escaped}'"
        found.append(argument)
    return found


# Mappings of the config whose keys are the user's own; Hydra takes new keys only where `++` says so.
FREE = ("device.gaudi.constants", "device.hpu.compile_options", "device.hpu.environment", "space.when")


def free_keys(arguments: Sequence[str]) -> list[str]:
    """`arguments` with what Hydra wants to see before overrides of `FREE`."""
    own = "|".join(map(re.escape, FREE))
    return [f"++{one}" if re.match(rf"({own})[.=]", one) else one for one in arguments]


def check_flags(arguments: Sequence[str]) -> list[str]:
    """The overrides among `arguments`.

    Raises:
        ConfigError: a flag that Hydra does not have, or a launcher that is not there.
    """
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise ConfigError(message, "overrides are key=value; --help lists the flags")

    parser.error = refuse  # type: ignore[assignment,method-assign]
    parsed = parser.parse_args(list(arguments))
    check_launcher(parsed.overrides, multirun=bool(parsed.multirun or parsed.cfg or parsed.info))
    return list(parsed.overrides)
