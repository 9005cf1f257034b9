"""A test double of `habana_frameworks.torch`: the documented signatures and semantics, the nasty ones included.

It runs on this machine's CPU. Tensors on "hpu" are copies on the CPU; time is a clock of its own, which two in-order
queues move on (`card`); a trace has the rows that Kineto writes for a Gaudi. What is wrong with the card is said by the
environment variable `DOUBLE`, a list of traits separated by commas; `card.TRAITS` says which there are.
"""

from habana_frameworks.torch import core as core
from habana_frameworks.torch import hpu as hpu
