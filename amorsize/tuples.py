"""Named tuples whose classes are made quickly.

``typing.NamedTuple`` compiles the text of each field's type, which takes 0.2 to 0.4 ms a class. A
first call needs forty such classes before it can begin. The classes made here have the same fields,
defaults and methods, and keep their annotations as text.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple

__all__ = ["NamedTuple"]


class _Fields(tuple):  # type: ignore[type-arg]
    """The methods of all named tuples."""

    __slots__ = ()

    if TYPE_CHECKING:
        _fields: tuple[str, ...]

    @classmethod
    def _make(cls, values: Iterable[Any]) -> _Fields:
        """Return a tuple with these values, in the order of the fields.

        Raises:
            TypeError: there are more or fewer values than fields.
        """
        made = tuple.__new__(cls, values)
        if len(made) != len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(made)}")
        return made

    def _asdict(self) -> dict[str, Any]:
        """Return {field: value}."""
        return dict(zip(self._fields, self, strict=True))

    def _replace(self, **changed: Any) -> _Fields:
        """Return a copy with some fields changed.

        Raises:
            TypeError: a name is not a field.
        """
        values = [changed.pop(*pair) for pair in zip(self._fields, self, strict=True)]
        if changed:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(changed)}")
        return self._make(values)

    __replace__ = _replace  # what copy.replace calls, from Python 3.13 on

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({', '.join(fields)})"


class _Maker(type):
    """Makes a tuple class from the body of a class, whose annotations are the fields."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        if not bases:  # NamedTuple itself, which has no instances
            return super().__new__(cls, name, bases, body)
        types: dict[str, Any] = body.get("__annotations__", {})
        defaults = {field: body[field] for field in types if field in body}
        assert list(types)[len(types) - len(defaults) :] == list(defaults), "a default is missing"
        names = "".join(f"{field}, " for field in types)
        new = eval(f"lambda _cls, {names}: _make(_cls, ({names}))", {"_make": tuple.__new__})
        new.__defaults__ = tuple(defaults.values())
        new.__name__, new.__annotations__ = "__new__", types
        new.__qualname__, new.__module__ = f"{name}.__new__", body["__module__"]
        body |= {
            **{field: _tuplegetter(at, f"Field {at}") for at, field in enumerate(types)},
            "__slots__": (),
            "__new__": new,
            "__match_args__": tuple(types),
            "_fields": tuple(types),
            "_field_defaults": defaults,
        }
        return type(name, (_Fields,), body)


if not TYPE_CHECKING:

    class NamedTuple(metaclass=_Maker):
        """The base class for writing named tuples, as with ``typing.NamedTuple``.

        >>> class Point(NamedTuple):
        ...     x: int
        ...     y: int = 0
        >>> Point(1)._replace(y=2)
        Point(x=1, y=2)
        """
