"""The named recipes of the field: how serving stacks split today, as points of the space.

A recipe is one small YAML file: those that come with the package lie in `conf/recipe`, a user's own may lie anywhere.

    name: two_batch_overlap          what it is called
    meaning: ...                     in a few words
    source: ...                      whose it is
    phases: [prefill]                where it applies; both phases if left out
    order: program                   program or list; program if left out
    split: {chunks: [2, 4], lag: 1}  values per axis, or lists of them: all combinations are tried

Axes that are left out are neutral.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from overlap.errors import ConfigError
from overlap.search.candidate import Candidate, Rejected
from overlap.search.config import AXES, LIST, PROGRAM, SpaceConfig, check_values
from overlap.similar import did_you_mean
from overlap.split import Split, canonical, violations
from overlap.workload import PHASES, Workload

ALL = "all"
SUFFIXES = (".yaml", ".yml")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recipe; see the module's text."""

    name: str
    meaning: str
    source: str
    split: dict[str, Any]
    phases: list[str] = msgspec.field(default_factory=lambda: list(PHASES))
    order: str = PROGRAM

    def points(self) -> Iterator[Split]:
        """All combinations of its values."""
        for point in itertools.product(*map(_as_list, self.split.values())):
            yield Split(**dict(zip(self.split, point, strict=True)))

    def candidates(self, workload: Workload, fused: bool) -> list[Candidate]:
        """Its points that can run on `workload`, canonical and once; ones with fused attention only if `fused`."""
        able = [one for one in self.points() if not self._why_not(one, workload, fused)]
        return list(dict.fromkeys(Candidate(canonical(one, workload), self.order) for one in able))

    def obstacle(self, workload: Workload, fused: bool) -> str:
        """Why none of its points can run on `workload`: the reason that most of them have; empty if some can."""
        reasons = [Rejected(one, self._why_not(one, workload, fused)) for one in self.points()]
        if not all(one.reason for one in reasons):
            return ""
        rule, _ = Counter(one.rule for one in reasons).most_common(1)[0]
        return next(one.reason for one in reasons if one.rule == rule)

    def _why_not(self, split: Split, workload: Workload, fused: bool) -> str:
        """Why a point cannot run, or is not what the recipe is about; empty if it can and is."""
        if workload.bucket.phase not in self.phases:
            return f"it is for {' and '.join(self.phases)}"
        if split.fused_sdpa and not fused:
            return "the device has no fused attention of its own"
        if broken := violations(split, workload):
            return broken[0]
        # A tile that covers everything cuts nothing: that would be another recipe under this one's name.
        axis = "kv_tile" if split.kv_tile else "query_tile"
        tile = getattr(split, axis)
        return f"{axis}={tile} leaves nothing to cut" if tile and not getattr(canonical(split, workload), axis) else ""


@dataclass(frozen=True)
class _File:
    """Where a recipe is written."""

    name: str
    content: bytes


def load_recipes(names: list[str]) -> list[Recipe]:
    """Recipes by name or by path of a YAML file; `all` stands for those of the package.

    Raises:
        ConfigError: there is no such recipe, or its file is wrong; names the file and the field.
    """
    found: dict[str, Recipe] = {}
    for name in names:
        for file in _files(name):
            recipe = _read(file)
            if recipe.name in found and found[recipe.name] != recipe:
                raise ConfigError(f"two recipes are called {recipe.name!r}", f"rename the one in {file.name}")
            found[recipe.name] = recipe
    return list(found.values())


def recipe_candidates(space: SpaceConfig, workload: Workload, fused: bool) -> Mapping[str, list[Candidate]]:
    """Candidates of every recipe that `space` asks for and that can run on `workload`.

    Those with fused attention are left out unless the device has one of its own (`fused`).
    """
    made = {recipe.name: recipe.candidates(workload, fused) for recipe in load_recipes(space.recipes)}
    return {name: candidates for name, candidates in made.items() if candidates}


def recipes_left_out(space: SpaceConfig, workload: Workload, fused: bool) -> Mapping[str, str]:
    """The other recipes that `space` asks for, and why none of their points can run on `workload`."""
    found = {recipe.name: recipe.obstacle(workload, fused) for recipe in load_recipes(space.recipes)}
    return {name: why for name, why in found.items() if why}


def _as_list(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _files(name: str) -> Iterator[_File]:
    if name.endswith(SUFFIXES):
        yield _File(name, _content(name))
        return
    folder = resources.files("overlap.conf") / "recipe"
    shipped = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    if name != ALL and name not in shipped:
        hint = did_you_mean(name, [*shipped, ALL], f"one of {', '.join(shipped)}, {ALL}, or a path that ends in .yaml")
        raise ConfigError(f"there is no recipe {name!r}", hint)
    for one in shipped if name == ALL else [name]:
        yield _File(f"{one}.yaml", (folder / f"{one}.yaml").read_bytes())


def _content(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        # A home directory that nobody has is a RuntimeError, a NUL in a path a ValueError.
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the recipe {path!r}: {reason}", "space.recipes takes paths") from error


def _read(file: _File) -> Recipe:
    try:
        recipe = msgspec.yaml.decode(file.content, type=Recipe)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the recipe in {file.name} is wrong: {reason}", "see overlap/search/recipes.py") from error
    _check(recipe, file.name)
    return recipe


def _check(recipe: Recipe, file: str) -> None:
    """Refuse names, axes, values, phases and orders that do not exist."""
    if not recipe.name.strip():
        raise ConfigError(f"the recipe in {file} has an empty name", "give it one")
    for axis, values in recipe.split.items():
        if axis not in AXES:
            hint = did_you_mean(axis, list(AXES), f"axes are {', '.join(AXES)}")
            raise ConfigError(f"the recipe in {file} has an axis {axis!r}, which does not exist", hint)
        check_values(f"split.{axis} of the recipe in {file}", axis, _as_list(values))
    if not recipe.phases or not set(recipe.phases) <= set(PHASES):
        raise ConfigError(f"the recipe in {file} has phases {recipe.phases}", f"of {', '.join(PHASES)}")
    if recipe.order not in (PROGRAM, LIST):
        raise ConfigError(f"the recipe in {file} has order {recipe.order!r}", f"{PROGRAM} or {LIST}")
