"""A coarse fingerprint: of the code a function uses, without the values it reaches.

A function that counts its calls, keeps results in a dictionary or draws from a generator changes
what its fingerprint covers, so its record would never be found again. The coarse fingerprint
covers only code: two functions that differ in values alone share it.
"""

from __future__ import annotations

import functools
import types

from ..versions import NAME, global_of
from .atoms import framed
from .codes import describe, digest_of
from .imports import places_of, source_of
from .looking import ABSENT, bases, cells_of, module_of, namespace, namespace_of, qualname
from .owners import is_users, version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["coarse_digest"]

# Functions, classes and modules to look at; each takes 15 us the first time.
MOST_CODES = 1_000


def coarse_digest(func: Callable[..., Any]) -> str:
    """Return 16 hexadecimal digits that identify the code of ``func``.

    Args:
        func: any callable.

    >>> def scale(k):
    ...     return lambda x: x * k
    >>> coarse_digest(scale(2)) == coarse_digest(scale(3)) != coarse_digest(len)
    True
    """
    walk = _CodeWalk()
    walk.meet(func if _is_code(func) else type(func))
    walk.run()
    return digest_of(_HEADER + b"".join(walk.parts))


_HEADER = f"amorsize code 2 python {NAME} ".encode()

_WRAPPERS = (functools.cached_property, type(functools.lru_cache(len)), staticmethod, classmethod,
             property)  # fmt: skip
_NAMED = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_KINDS = (types.FunctionType, types.MethodType, types.ModuleType, functools.partial, type,
          *_WRAPPERS, *_NAMED)  # fmt: skip


def _is_code(value: object) -> bool:
    # By its type: an object may report any ``__class__``.
    return issubclass(type(value), _KINDS)


class _CodeWalk:
    """A breadth-first walk through code; neither a value nor its presence leaves a trace.

    Attributes:
        parts: the encoding so far.
    """

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._places: dict[int, int] = {}
        self._todo: list[Any] = []  # keeps objects alive, so that no id is reused

    def meet(self, value: Any) -> None:
        """Encode a reference to a value if it is code, and queue the value for encoding."""
        if not _is_code(value):
            return
        place = self._places.setdefault(id(value), len(self._todo))
        if place == len(self._todo):
            self._todo.append(value)
        self._tag(b"@", str(place))

    def run(self) -> None:
        """Encode all values in the queue, and those they lead to."""
        done = 0
        while done < min(len(self._todo), MOST_CODES):
            value = self._todo[done]
            done += 1
            try:
                self._encode(value)
            except Exception:  # noqa: BLE001 - a user's descriptor may raise anything when looked at
                self._tag(b"!", "")

    def _encode(self, value: Any) -> None:
        kind = type(value)
        if issubclass(kind, types.FunctionType):
            self._function(value)
        elif issubclass(kind, types.MethodType):
            self.meet(value.__func__)
            self.meet(value.__self__ if _is_code(value.__self__) else type(value.__self__))
        elif issubclass(kind, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.meet(part)
        elif issubclass(kind, type):
            self._class(value)
        elif issubclass(kind, types.ModuleType):
            self._tag(b"m", str(namespace_of(value).get("__name__")))
        elif issubclass(kind, _WRAPPERS):
            for name in ("__func__", "__wrapped__", "fget", "fset", "fdel", "func"):
                self.meet(getattr(value, name, None))
        else:
            self._library(str(getattr(value, "__module__", "")), value.__qualname__)

    def _function(self, function: types.FunctionType) -> None:
        inner = function.__closure__ is not None or "<" in function.__qualname__
        if not inner and not is_users(function.__module__):
            self._library(function.__module__, function.__qualname__)
            return
        described = describe(function.__code__)
        self.parts.append(framed(b"C", described.digest))
        for _, content in cells_of(function):
            self.meet(content)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.meet(default)
        for name in described.imports:
            for place in places_of(function.__globals__, name):
                # Whether the module is loaded yet must leave no trace.
                self.parts.append(framed(b"I", source_of(place)))
        for name in described.globals:
            value = global_of(function.__globals__, name, ABSENT)
            self.meet(value)
            if type(value) is types.ModuleType and is_users(namespace_of(value).get("__name__")):
                for attribute in described.names:
                    self.meet(global_of(namespace_of(value), attribute, ABSENT))

    def _class(self, cls: type) -> None:
        if not is_users(module_of(cls)):
            self._library(module_of(cls), qualname(cls))
            return
        self._tag(b"K", qualname(cls))
        for part in (*bases(cls), *namespace(cls).values()):
            self.meet(part)

    def _library(self, module: str, name: str) -> None:
        self._tag(b"L", f"{module}:{name}:{version(module)}")

    def _tag(self, tag: bytes, text: str) -> None:
        self.parts.append(framed(tag, text.encode("utf-8", "surrogatepass")))
