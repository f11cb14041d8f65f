"""A coarser fingerprint: of the code a function uses, whatever values it reaches.

A function that counts its calls, keeps results in a dictionary or draws from a generator changes
what its fingerprint covers. So what was learned of it would never be found again. This one leaves
out all that is no code: two functions that differ in values alone share it.
"""

from __future__ import annotations

import functools
import sys
import types

from .codes import Code, digest_of
from .owners import is_users
from .walk import MISSING, Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["coarse_digest"]


def coarse_digest(func: Callable[..., Any]) -> str:
    """Return 16 hexadecimal digits that tell the code of ``func`` from others'.

    Args:
        func: any callable.

    >>> def scale(k):
    ...     return lambda x: x * k
    >>> coarse_digest(scale(2)) == coarse_digest(scale(3)) != coarse_digest(len)
    True
    """
    walk = _CodeWalk()
    walk.value(func if _is_code(func) else type(func))
    return digest_of(_HEADER + b"".join(walk.parts))


_HEADER = b"amorsize code 1 python %d.%d " % sys.version_info[:2]

_KINDS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    functools.partial,
    functools.cached_property,
    type(functools.lru_cache(len)),
    staticmethod,
    classmethod,
    property,
    type,
)


def _is_code(value: object) -> bool:
    # By its type: an object may say anything of its class.
    return issubclass(type(value), _KINDS)


class _CodeWalk(Walk):
    """A walk that no value leaves a trace in, nor whether there is one."""

    def value(self, value: Any) -> None:
        """Encode code, and nothing else."""
        if _is_code(value):
            super().value(value)

    def globals(self, namespace: dict[str, Any], described: Code) -> None:
        """Encode the functions, classes and modules among the globals the code names."""
        for name in described.globals:
            value = namespace.get(name, MISSING)
            if _is_code(value):
                self.tag(b"g", name)
                self.value(value)
                self.attributes(value, described.names)

    def method(self, method: types.MethodType) -> None:
        """Encode a bound method by function and type of the instance."""
        owner = method.__self__
        self.parts.append(b"M")
        self.value(method.__func__)
        self.value(owner if _is_code(owner) else type(owner))

    def partial(self, partial: functools.partial[Any]) -> None:
        """Encode a partial by the function and what is code of what it binds."""
        self.parts.append(b"P")
        for part in (partial.func, *partial.args, *partial.keywords.values()):
            self.value(part)

    def cls(self, cls: type) -> None:
        """Encode a user's class by its bases and methods."""
        if not is_users(cls.__module__):
            self.library(cls)
            return
        self.tag(b"K", cls.__qualname__)
        for part in (*cls.__bases__, *vars(cls).values()):
            self.value(part)

    def attributes_of(self, state: dict[str, Any]) -> None:
        """Leave out what an instance or a function holds."""
