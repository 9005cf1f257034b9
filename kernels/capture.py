"""From kernel code to a `Program`: run the window on meta tensors under a recorder."""

from __future__ import annotations

from overlap.capture import Recorder
from overlap.kernels import inputs as window_inputs
from overlap.kernels import stack
from overlap.program import Program
from overlap.split import Split, check
from overlap.workload import Workload


def capture(workload: Workload, split: Split) -> Program:
    """The program of `workload` cut by `split`.

    Its outputs are `hidden` and every layer's caches, `layer0.key_cache` and so on.

    Raises:
        SplitError: `split` does not fit the workload.
    """
    check(split, workload)
    with Recorder() as recorder:
        inputs = window_inputs.assemble(workload, lambda name, spec: recorder.input(name, *spec))
        outputs = {"hidden": stack.run(inputs, workload, split)}
        for layer, (keys, values) in enumerate(zip(inputs.key_caches, inputs.value_caches, strict=True)):
            outputs |= {f"layer{layer}.key_cache": keys, f"layer{layer}.value_cache": values}
        return recorder.finish(outputs, label=f"{workload} [{split}]")
