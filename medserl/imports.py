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
