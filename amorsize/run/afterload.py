"""Act on a module as soon as it has been loaded, be it now or later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..lookup import loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["after_load"]


def after_load(name: str, act: Callable[[Any], object]) -> None:
    """Call ``act`` with a module: now if it is loaded, else right after its code has run.

    Args:
        name: full name of the module.
        act: takes the module.

    >>> after_load("sys", lambda module: print(module.__name__))
    sys
    """
    module = loaded(name)
    if module is not None:
        act(module)
    else:
        sys.meta_path.insert(0, _Finder(name, act))


class _Finder:
    """Finds one module as the other finders do, and wraps its loader; then it is removed."""

    def __init__(self, name: str, act: Callable[[Any], object]) -> None:
        self._name = name
        self._act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self._act)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """A loader that calls ``act`` with the module it has loaded."""

    def __init__(self, loader: Any, act: Callable[[Any], object]) -> None:
        self._loader = loader
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        assert module.__spec__ is not None
        module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._act(module)
