"""The names that code looks up in modules and classes, and the values that it finds under them.

Code may name a module before or after the search meets it. So names and modules are collected, and
the names are looked up in the modules whenever the search has nothing else to do.
"""

from __future__ import annotations

import builtins
import functools
import sys
import types
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import cast

from ..versions import global_of
from .codes import describe
from .frontier import MOST_NAME, Frontier
from .looking import ABSENT, module_of, namespace, namespace_of
from .owners import LIBRARY, PYTHON, USER
from .settings import CACHE, CALLABLE, holds_users_own, is_data, is_simple, is_users_own, whose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Names", "Owner"]

# A function that uses pandas reaches thousands. 150 take 5 to 6 ms of each call with fresh workers,
# 300 took 7 to 16 ms (two cores busy with other work, November 2026).
MOST_LIBRARY_FUNCTIONS = 150

# Names that code uses to look up other names by text: in its own module and the modules it reaches
# (``_COMPUTED``), or in any module (``_ANYWHERE``).
_COMPUTED = frozenset({"getattr", "attrgetter", "vars", "__dict__", "globals", "locals", "dir",
                       "__globals__", "f_globals", "query", "get_type_hints"})  # fmt: skip
_ANYWHERE = frozenset({"import_module", "__import__", "modules", "eval", "exec", "get_attr",
                       "resolve_name", "import_string", "locate"})  # fmt: skip

Owner = str | type | types.FunctionType  # a module's name, a class, a function


class Names:
    """What the code that a search meets looks up by name.

    Args:
        frontier: takes the values found, as the search goes on from them.

    Attributes:
        values, codes: see ``uses.Uses``; the values by (id of the namespace, name).
        libraries: names of the installed modules of what the search met, the first met first.
    """

    def __init__(self, frontier: Frontier) -> None:
        self.values: dict[tuple[int, str], tuple[Owner, str, object]] = {}
        self.codes: dict[tuple[str, str], frozenset[bytes]] = {}
        self.libraries: dict[str, None] = {}
        self._meet = frontier.meet
        self._texts = frontier.texts
        self._library_left = MOST_LIBRARY_FUNCTIONS
        self._names: set[str] = set()  # that the user's code looks up
        self._modules: dict[int, types.ModuleType] = {}
        self._library_names: set[str] = {"__call__", "__init__"}  # that packages' code looks up
        self._classes: dict[int, type] = {}  # of packages
        self._asked: set[tuple[int, str]] = set()  # (module, name)
        self._scanned: set[int] = set()  # modules all of whose simple values were taken

    def add(self, names: Iterable[str]) -> None:
        """Note names that the user's code looks up."""
        self._names.update(names)

    def asking(self, name: str) -> None:
        """Note a function that looks up names by text, whatever name leads to it."""
        if name in _COMPUTED or name in _ANYWHERE:
            self._names.add(name)

    def record(self, namespace: Any, owner: Any, name: str, value: Any) -> None:
        """Note what a module, class or function has under a name."""
        if owner is not None and (value is not ABSENT or name not in vars(builtins)):
            self.values[id(namespace), name] = (owner, name, value)

    # Code -----------------------------------------------------------------------------------

    def function(self, function: types.FunctionType) -> None:
        """Look up the names in a function's code."""
        self.asking(function.__name__)
        of = whose(function.__module__)
        if of == USER:
            self._of_user(function)
        elif of == LIBRARY:
            self.libraries[function.__module__] = None
            if self._library_left > 0:
                self._library_left -= 1
                self._of_library(function)

    def _of_user(self, function: types.FunctionType) -> None:
        described, names = describe(function.__code__), function.__globals__
        owner = _module_of(names)
        for name in described.globals:
            value = global_of(names, name, ABSENT)
            if value is ABSENT:
                self._of_builtins(name)
            if owner != "__main__":  # its globals travel with the function
                self.record(names, owner, name, value)
            self._meet(value)
        self._names.update(described.names)
        self._texts.update(_texts_in(function.__code__))
        for name in described.imports:
            self._imported(names, name)
        if not _COMPUTED.isdisjoint(described.names):
            self._names.update(filter(str.isidentifier, _texts_in(function.__code__)))
            if owner is not None:
                self._modules[id(sys.modules[owner])] = sys.modules[owner]
        self._definition(function, described.digest)

    def _definition(self, function: types.FunctionType, digest: bytes) -> None:
        """Note code, defaults and attributes of a function that travels by name."""
        key = (function.__module__, function.__qualname__)
        if "<" in key[1] or key[0] == "__main__":
            return
        self.codes[key] = self.codes.get(key, frozenset()) | {digest}
        for name in ("__defaults__", "__kwdefaults__"):
            value = getattr(function, name)
            if value is not None:
                self.record(function, function, name, value)
        for name, value in vars(function).items():
            if name != "__wrapped__" and function.__code__ is not _DISPATCHER:
                self.record(function, function, name, value)

    def _of_builtins(self, name: str) -> None:
        """Take a name that was added to the builtins, as gettext adds ``_``."""
        value = vars(builtins).get(name, ABSENT)
        if type(value) in (types.FunctionType, types.MethodType) or is_simple(value):
            self.record(vars(builtins), "builtins", name, value)
            self._meet(value)

    def _of_library(self, function: types.FunctionType) -> None:
        described, names = describe(function.__code__), function.__globals__
        owner = _module_of(names)
        if owner is None:
            return
        self._library_names.update(described.names)
        near = function.__name__ in self._names
        for name in described.globals:
            value = names.get(name, ABSENT)
            self._of_package(names, owner, name, value, near=near)
            if type(value) is types.ModuleType and whose(_name_of(value)) != PYTHON:
                for inner in described.names:
                    held = vars(value).get(inner, ABSENT)
                    self._of_package(vars(value), _module_of(vars(value)), inner, held)

    def _of_package(
        self, names: Any, owner: Owner | None, name: str, value: Any, *, near: bool = False
    ) -> None:
        """Take a named value of an installed package if a worker may lack it."""
        if value is ABSENT:
            return
        other = type(value) is types.BuiltinFunctionType and value.__name__ != name
        asked = (near or name in self._names) and is_data(value, name)
        if other or asked or is_simple(value) or is_users_own(value) or holds_users_own(value):
            self.record(names, owner, name, value)
        if type(value) in CALLABLE or issubclass(type(value), type):
            self._meet(value)

    def _imported(self, names: dict[str, Any], name: str) -> None:
        """Meet a module that code imports when it runs, and the packages it is in."""
        package = str(names.get("__package__") or "")
        packages = ["", *accumulate(package.split("."), "{}.{}".format)]
        parts = list(accumulate(filter(None, name.split(".")), "{}.{}".format)) or [""]
        for full in (f"{one}.{part}".strip(".") for one in packages for part in parts):
            self._meet(sys.modules.get(full))

    # Modules and classes --------------------------------------------------------------------

    def add_module(self, module: types.ModuleType) -> None:
        """Note a module whose attributes code may look up; a lazy module has none yet."""
        name = _name_of(module)
        if _is_loaded(module) and (of := whose(name)) != PYTHON:
            self._modules[id(module)] = module
            if of == LIBRARY and type(name) is str:
                self.libraries[name] = None
            # A module may make attributes on demand, or have a class of its own.
            self._meet(namespace_of(module).get("__getattr__"))
            if type(module) is not types.ModuleType:
                self._meet(type(module))

    def add_class(self, cls: type) -> None:
        """Note a class of a package, whose attributes code may look up."""
        self._classes[id(cls)] = cls
        self.libraries[module_of(cls)] = None

    def ask(self) -> bool:
        """Look up the names used so far in the modules met so far; return whether any is new."""
        if not _ANYWHERE.isdisjoint(self._names):
            for name, module in list(sys.modules.items()):
                if _is_loaded(module) and whose(name) == USER:
                    self._modules[id(module)] = module
        before = len(self._asked) + len(self._scanned)
        self._ask_classes()
        for module in list(self._modules.values()):
            names = namespace_of(module)
            owner = _module_of(names)
            of_user = whose(_name_of(module)) == USER
            for name in self._names:
                if (id(module), name) not in self._asked:
                    self._asked.add((id(module), name))
                    self._attribute(names, owner, name, of_user=of_user)
            if id(module) not in self._scanned and self._computes():
                self._scanned.add(id(module))
                self._scan(names, owner)
        return len(self._asked) + len(self._scanned) > before

    def _ask_classes(self) -> None:
        """Look up the names used so far in the classes of packages met so far."""
        wanted = self._names | self._library_names
        for cls in list(self._classes.values()):
            names = namespace(cls)
            for name in wanted & names.keys():
                if (id(cls), name) not in self._asked and self._library_left > 0:
                    self._asked.add((id(cls), name))
                    self._of_package(names, cls, name, names[name])

    def _computes(self) -> bool:
        return not (_COMPUTED | _ANYWHERE).isdisjoint(self._names)

    def _attribute(self, names: Any, owner: str | None, name: str, *, of_user: bool) -> None:
        value = names.get(name, ABSENT)
        if of_user or value is ABSENT:
            self.record(names, owner, name, value)
            self._meet(value)
        else:
            self._of_package(names, owner, name, value)
            if type(value) is types.ModuleType:
                self._meet(value)

    def _scan(self, names: dict[str, Any], owner: str | None) -> None:
        """Take the values that code may look up by a computed name."""
        for name, value in list(names.items()):
            own = owner == "__main__" and _is_defined_in_main(value)
            if not name.startswith("__") and (own or is_simple(value)):
                self.record(names, owner, name, value)
                self._meet(value)


def _texts_in(code: types.CodeType) -> Iterator[str]:
    """Yield the short texts in code, and in its nested code: names may be among them."""
    for const in code.co_consts:
        if type(const) is str and len(const) <= MOST_NAME:
            yield const
        elif type(const) is types.CodeType:
            yield from _texts_in(const)


def _is_loaded(module: object) -> bool:
    """Return whether an object is a module, and not a lazy one."""
    kind = type(module)
    return issubclass(kind, types.ModuleType) and module_of(kind) != "importlib.util"


def _name_of(module: types.ModuleType) -> object:
    return namespace_of(module).get("__name__")


def _is_defined_in_main(value: Any) -> bool:
    if issubclass(type(value), type):
        return module_of(value) == "__main__"
    return type(value) in (types.FunctionType, CACHE) and value.__module__ == "__main__"


def _module_of(namespace: Any) -> str | None:
    """Return the name of the imported module with this namespace, None if there is none."""
    name = namespace.get("__name__")
    if type(name) is not str or namespace_of(sys.modules.get(name)) is not namespace:
        return None
    return name if name == "__main__" or namespace.get("__spec__") is not None else None


_DISPATCHER = cast("types.FunctionType", functools.singledispatch(len)).__code__
