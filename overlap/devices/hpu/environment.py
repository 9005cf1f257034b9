"""The environment of the process that holds the card: all that the bridge reads when it is imported.

Terms
    pinned: what the mode and the harness need; a user may not set these to something else.
    recorded: flags that change what is measured; their values go into the result beside the software's versions.

Sources: §2.1, §2.5, §2.10 of the serving facts; c.5 of the profiling formats (see `bridge` for what they are).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from overlap.devices.hpu.settings import BLOCK_COLUMNS, BLOCK_ROWS, HpuConfig
from overlap.errors import ConfigError

LAZY_MODE = "PT_HPU_LAZY_MODE"
PROFILE = "HABANA_PROFILE"
# Only this spelling is true everywhere: the bridge of 1.19 takes "true" for false.
YES, NO = "1", "0"
RECORDED_PREFIXES = ("PT_HPU", "HABANA_PROFILE", "PT_ENABLE_INT64_SUPPORT", "RUN_TPC_FUSER", "DISABLE_PARALLELISM")
SPELLED_BOOLEANS = {"true": YES, "false": NO, "yes": YES, "no": NO, "on": YES, "off": NO}


def child_environment(config: HpuConfig, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of the child: `outer` (this process's), the config's, and what is pinned.

    Raises:
        ConfigError: the config sets a pinned variable to something else.
    """
    pinned = {
        LAZY_MODE: YES if config.lazy else NO,
        # Without them graph compilations and hits of the recipe cache are not told apart.
        "PT_HPU_METRICS_GC_DETAILS": YES,
        "PT_HPU_ENABLE_CACHE_METRICS": YES,
        # Bound to be imported explicitly, after this environment is complete.
        "PT_HPU_AUTOLOAD": NO,
    }
    for name, value in config.environment.items():
        if name in pinned and pinned[name] != str(value):
            hint = "it follows from device.hpu.mode" if name == LAZY_MODE else "the harness needs it"
            raise ConfigError(f"device.hpu.environment sets {name} to {value}, not {pinned[name]}", hint)
    found = dict(os.environ if outer is None else outer)
    for name in (BLOCK_ROWS, BLOCK_COLUMNS):
        if name in found:
            hint = f"unset it; device.hpu.sdpa_block={found[name]} sets both block sizes"
            raise ConfigError(f"{name} is set in this shell", hint)
    # The wrapper's argument says so too, but the variable wins, and words that mean true have meant false.
    found["PT_HPUGRAPH_DISABLE_TENSOR_CACHE"] = YES
    if found.get(PROFILE, NO) == NO:
        # With 0 the profiler would refuse; unset, the bridge sets this itself, but only at import.
        found[PROFILE] = "profile_api_light"
    if str(config.environment.get(PROFILE, YES)) == NO:
        raise ConfigError(f"device.hpu.environment sets {PROFILE} to 0", "engines cannot be seen without the profiler")
    found.update({name: spelled(value) for name, value in config.environment.items()})
    if config.sdpa_block is not None:
        found |= {name: str(config.sdpa_block) for name in (BLOCK_ROWS, BLOCK_COLUMNS)}
    return found | pinned


def spelled(value: object) -> str:
    """A value as the bridge reads it: booleans as 1 and 0, whatever they were written as."""
    if isinstance(value, bool):
        return YES if value else NO
    return SPELLED_BOOLEANS.get(str(value).lower(), str(value))


def recorded(environment: Mapping[str, str]) -> dict[str, str]:
    """The flags that change what is measured."""
    return {name: value for name, value in sorted(environment.items()) if name.startswith(RECORDED_PREFIXES)}
