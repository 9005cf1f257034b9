"""What the queues of the model hold."""

from __future__ import annotations

from overlap.program import Engine

ENGINES = tuple(Engine)
NUMBER = {engine: number for number, engine in enumerate(ENGINES)}


class Node:
    """What a queue holds.

    `alone_ns` is the time with all bandwidth to itself; `hbm` and `die` are bytes per ns then. `part` is what is added
    to the op's name; `slices` into how many nodes of its engine the unit's work is cut.
    """

    __slots__ = ("alone_ns", "die", "engine", "hbm", "index", "part", "recipe", "slices", "unit", "users", "waits")

    def __init__(self, unit: int, engine: int, recipe: int, alone_ns: float, hbm: float, die: float) -> None:
        self.unit = unit
        self.engine = engine
        self.recipe = recipe
        self.alone_ns = alone_ns
        self.hbm = hbm
        self.die = die
        self.index = 0
        self.part = ""
        self.slices = 1
        self.waits: list[Node] = []
        self.users: list[Node] = []
