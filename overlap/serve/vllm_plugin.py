"""The way into vLLM on Gaudi: an entry point of the group `vllm.general_plugins`, called by every process of a server.

    VLLM_HPU_OVERLAP_CONFIG=/path/tuned.json vllm serve …

Terms
    seam: the name `ModuleFusedSDPA` in the module whose attention makes one per layer. It is bound to a subclass that
        runs tuned shapes by their split and hands all others on; see `overlap.serve.vllm.prefill`.
    watch: a finder that waits for the import of that module, where it has not been imported yet.

Contract: without the variable nothing is done and nothing is imported. With it, `register` may be called any number of
times, before or after the module is imported; vllm_gaudi itself is never imported from here, and the config is read
when the first layer is made, which is before anything is traced. A seam that is not there is an error: a server that
was told to run tuned must not run untuned without saying so.

Where vLLM's own VLLM_PLUGINS lists what to load, `overlap` must be in the list.

Source of the seam: vllm-project/vllm-gaudi @091bbadd, `extension/utils.py` and `attention/backends/hpu_attn.py`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from overlap.errors import ServeError

VARIABLE = "VLLM_HPU_OVERLAP_CONFIG"
MODULE = "vllm_gaudi.attention.backends.hpu_attn"
NAME = "ModuleFusedSDPA"
# Under vLLM's own logger, whose handlers a server has.
log = logging.getLogger("vllm.plugins.overlap")


def register() -> None:
    """What vLLM calls at the start of every process.

    Raises:
        ServeError: the module of the seam is there, and the seam is not.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    module = sys.modules.get(MODULE)
    if module is not None:
        bind(module, path)
    elif not any(isinstance(finder, Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, Watch(path))


def bind(module: ModuleType, path: str) -> None:
    """Put the tuned subclass in the place of the class that `module` has, once.

    Raises:
        ServeError: it has none.
    """
    base = getattr(module, NAME, None)
    if not isinstance(base, type):
        raise ServeError(f"{module.__name__} has no {NAME}", f"unset {VARIABLE}, or use a vllm-gaudi that has it")
    # Not before: this imports torch, and by now the module of the seam has done so.
    from overlap.serve.vllm.prefill import TunedPrefill, tuned_class

    if issubclass(base, TunedPrefill):
        return
    setattr(module, NAME, tuned_class(base, path))
    log.info("overlap: prefill of %s may run by %s", MODULE, path)


class Watch(MetaPathFinder):
    """Finds the module of the seam by the other finders, and binds the seam when it has been executed."""

    def __init__(self, path: str) -> None:
        self.path = path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of that one module, with a loader that binds."""
        if fullname != MODULE:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if find is None or isinstance(finder, Watch):
                continue
            found: ModuleSpec | None = find(fullname, path, target)
            if found is not None:
                if found.loader is not None:
                    found.loader = Binding(found.loader, self)
                return found
        return None


class Binding(Loader):
    """The module's own loader; steps back as soon as the module is there."""

    def __init__(self, loader: Loader, watch: Watch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        """Whatever else the loader can do."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute, bind, and go away; a module that fails is watched on, for its import may be tried again."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        bind(module, self._watch.path)
        if self._watch in sys.meta_path:
            sys.meta_path.remove(self._watch)
