"""Capture: run kernel code on meta tensors and keep what it did as a `Program`.

Terms
    scope: `with op("softmax"):` names one op; every ATen call inside it belongs to that op, which runs as a whole on
        one engine. `with region(layer=0, chunk=1):` says where in the model the ops lie.
    piece: a function under `@piece`. What it does depends on its static arguments and on the geometry of its tensor
        arguments alone, so it is recorded once and stamped wherever the same call comes again.
    frame: what is being recorded: the program, or a piece of it.

Contract: outside a recording, `op`, `region` and `piece` do nothing, so the same code runs on real tensors. Inside one,
every compute call must lie in an op, an op must be all matrix or all vector work, and views are free.
"""

from overlap.capture.recorder import Recorder, op, piece, region

__all__ = ["Recorder", "op", "piece", "region"]
