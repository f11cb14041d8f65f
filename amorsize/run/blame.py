"""Find the part of a value that cannot be sent, and name the path to it.

"Cannot pickle '_thread.lock' object" does not help a user who sent a function. So when a value
cannot be sent, it is taken apart. The first part that cannot be sent alone is taken apart in turn,
and the message names all parts on the way down.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["explained"]

# Chosen without measurement: a longer path is not readable, and each level pickles its parts again.
DEEPEST = 12
MOST_PARTS = 10_000


def explained(value: Any, error: BaseException, way: str) -> str:
    """Return the message for a value that cannot be sent.

    Args:
        value: the value.
        error: the exception that pickling the value raised.
        way: name of the ``pickler.Way``.
    """
    reason = f"{type(error).__name__}: {error}"
    if not isinstance(error, Exception):
        return _unplaced(value, reason)
    try:
        path, culprit = _culprit(value, functools.partial(_is_sendable, way=way))
    except Exception:  # noqa: BLE001 - a user's objects may raise anything when examined
        path, culprit = [], value
    if not path:
        return _unplaced(culprit, reason)
    where = " of ".join(reversed(path))
    return f"{where} ({type(culprit).__name__}) cannot be sent to another process: {reason}"


def _unplaced(value: Any, reason: str) -> str:
    return f"a value of type {type(value).__name__} cannot be sent to another process: {reason}"


def _culprit(value: Any, is_sendable: Callable[[Any], bool]) -> tuple[list[str], Any]:
    """Return the names of the parts on the way down, outermost first, and the last part."""
    path: list[str] = []
    seen: dict[int, Any] = {}
    while len(seen) < DEEPEST:
        seen[id(value)] = value
        for label, part in itertools.islice(_parts(value), MOST_PARTS):
            if id(part) not in seen and not is_sendable(part):
                if not path and label and _noun(value):
                    path.append(_noun(value))
                if label:
                    path.append(label)
                value = part
                break
        else:
            break
    return path, value


def _is_sendable(value: Any, way: str) -> bool:
    from .pickler import Pickler, Way  # loads cloudpickle; needed only after a failure

    try:
        Pickler(_Nowhere(), Way[way], lambda _: False).dump(value)
    except Exception:  # noqa: BLE001 - a reduction may raise anything
        return False
    return True


class _Nowhere:
    """A file that discards what is written."""

    def write(self, data: Any) -> int:
        return len(data)


def _noun(value: Any) -> str:
    """Return how to name the owner of a part, "" for a tuple or list."""
    if isinstance(value, types.FunctionType):
        return f"function {value.__qualname__}"
    if isinstance(value, type):
        return f"class {value.__qualname__}"
    return "" if type(value) in (tuple, list) else f"the {type(value).__name__}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (label, part) of everything that is sent with a value."""
    kind = type(value)
    if kind is types.FunctionType:
        yield from _parts_of_function(value)
    elif kind is types.MethodType:
        yield "", value.__self__
        yield "", value.__func__
    elif kind is functools.partial:
        yield "", value.func
        for place, part in enumerate(value.args):
            yield f"argument {place} of the partial", part
        for name, part in value.keywords.items():
            yield f"argument {name!r} of the partial", part
    elif isinstance(value, type):
        for name, part in list(vars(value).items()):
            if name not in ("__dict__", "__weakref__"):
                yield f"the attribute {name!r}", part
    else:
        yield from _parts_of_data(value)


def _is_ours(value: Any) -> bool:
    return type(value).__module__.startswith(f"{__name__.partition('.')[0]}.")


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if cell != types.CellType():
            yield f"the captured variable {name!r}", cell.cell_contents
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield "a default", default
    for name in _names_in(function.__code__):
        if name in function.__globals__:
            yield f"the global {name!r}", function.__globals__[name]
    for name, part in vars(function).items():
        yield f"the attribute {name!r}", part


def _names_in(code: types.CodeType) -> list[str]:
    """Return the names that a code object and the code objects nested in it use."""
    inner = [name for part in code.co_consts if type(part) is types.CodeType
             for name in _names_in(part)]  # fmt: skip
    return [*code.co_names, *inner]


def _parts_of_data(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple) and any(map(_is_ours, (value, *value[:1]))):
        yield from (("", part) for part in value)  # amorsize's own tuple: no helpful labels
    elif isinstance(value, tuple | list | set | frozenset):
        for place, part in enumerate(value):
            yield f"element {place}", part
    elif isinstance(value, dict):
        for key, part in value.items():
            yield f"the key {str(key)[:40]!r}", part
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict and not isinstance(value, types.ModuleType):
        for name, part in attributes.items():
            yield f"the attribute {name!r}", part
