"""Hooks that run right after another package's module is imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

Hook = Callable[[ModuleType], None]


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function on a module right after its first import (PEP 302 finder).

    Importing these modules at once would load them into processes that never need them.
    """

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._waiting = dict(hooks)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        hook = self._waiting.pop(fullname, None)
        if hook is None:
            return None
        spec = importlib.util.find_spec(fullname)  # this finder no longer answers for it
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(hooks: Mapping[str, Hook]) -> None:
    """Call each hook on its module: now where that is imported already, else right after its import."""
    for name, hook in hooks.items():
        if name in sys.modules:
            hook(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport({n: h for n, h in hooks.items() if n not in sys.modules}))


def spare_scipy() -> None:
    """Keep transformers and vLLM from importing scikit-learn and scipy in this process, which no run needs them to.

    May be called twice: a run's driver does it itself, and again when verl loads its plug-ins.

    Where they are installed, transformers 5.10.4 imports sklearn.metrics (generation/candidate_generator.py:30, for one
    kind of assisted generation) and scipy.optimize (loss/loss_*.py, for object detection), and vLLM 0.24.0
    scipy.signal (multimodal/audio.py:20): together 3 s of processor time and 200 MB in each process of a run.
    tests/run/test_imports.py fails when they ask in another way.
    """
    after_import({"transformers.utils": _without_scipy})
    if not any(isinstance(finder, _WithoutSignal) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WithoutSignal())


def _without_scipy(utils: ModuleType) -> None:
    for name in ("is_sklearn_available", "is_scipy_available"):
        getattr(utils, name)  # an AttributeError here: transformers has renamed it
        setattr(utils, name, lambda: False)


class _WithoutSignal(importlib.abc.MetaPathFinder):
    """Hides scipy.signal while vLLM's module for audio is imported, which then goes without."""

    asking, hidden = "vllm.multimodal.audio", "scipy.signal"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.asking or self.hidden in sys.modules:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            sys.modules[self.hidden] = None  # type: ignore[assignment]  # importing it raises ModuleNotFoundError
            try:
                execute(module)
            finally:
                sys.modules.pop(self.hidden, None)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
