"""A random stream for each item, whatever the workers and chunks.

Before an item, the global generators are seeded from the seed and the item's index; after it, they
are what they were before. The generators are those of ``random``, of NumPy (``numpy.random.seed``)
and of torch. A library is not loaded for that. If an item loads it, it is seeded then.

Which item is the first to import a module depends on the workers and chunks, and some modules draw
numbers while they are imported. So the generators are after an import what they were before it.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial

from ..lookup import loaded
from ..tuples import NamedTuple
from .counted import Counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["Seeded", "inner_seed", "stream_of"]

_WORD = 4  # bytes of a word of NumPy's seed
_TORCH_BYTES = 8


def stream_of(seed: int, index: int, library: str) -> bytes:
    """Return the 32 bytes that a generator is seeded with for an item.

    They differ for each library: Python and NumPy make the same numbers of the same seed.

    Args:
        seed: the seed of the call.
        index: index of the item.
        library: name of the generator's module.

    >>> stream_of(1, 2, "random") == stream_of(1, 2, "random")
    True
    >>> stream_of(1, 2, "random") == stream_of(12, 0, "random")
    False
    """
    text = f"amorsize {seed} {index} {library}"
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def inner_seed() -> int | None:
    """Return a seed for a call inside a seeded item, drawn from its stream; None outside."""
    if _own_streams() is None:
        return None
    import random

    return random.getrandbits(63)


class Seeded(Counted):
    """A function whose items each have a random stream of their own.

    Args:
        func: what to call.
        seed: the seed of the call.
    """

    __slots__ = ("_seed",)

    def __init__(self, func: Callable[..., Any], seed: int) -> None:
        super().__init__(func)
        self._seed = seed

    def __call__(self, *args: Any) -> Any:
        """Return the result of an item, run with its stream."""
        streams = _Streams(partial(stream_of, self._seed, self.index))
        self.index += 1
        _watch_imports()
        _active.append(streams)
        try:
            return self.func(*args)
        finally:
            streams.put_back()
            _active.remove(streams)


class _Generator(NamedTuple):
    """What can be done with the global generator of a library; each takes its module.

    Attributes:
        state: returns its state.
        put_back: gives it such a state.
        seed: seeds it, from the 32 bytes of a stream.
    """

    state: Callable[[Any], Any]
    put_back: Callable[[Any, Any], object]
    seed: Callable[[Any, bytes], object]


def _seed_numpy(module: Any, stream: bytes) -> None:
    words = range(0, len(stream), _WORD)
    module.seed([int.from_bytes(stream[at : at + _WORD], "little") for at in words])


def _seed_torch(module: Any, stream: bytes) -> None:
    module.manual_seed(int.from_bytes(stream[:_TORCH_BYTES], "little") >> 1)


_GENERATORS = {
    "random": _Generator(
        lambda module: module.getstate(),
        lambda module, state: module.setstate(state),
        lambda module, stream: module.seed(int.from_bytes(stream, "little")),
    ),
    "numpy.random": _Generator(
        lambda module: module.get_state(legacy=False),
        lambda module, state: module.set_state(state),
        _seed_numpy,
    ),
    "torch": _Generator(
        lambda module: module.get_rng_state(),
        lambda module, state: module.set_rng_state(state),
        _seed_torch,
    ),
}


class _Streams:
    """The global generators, from when they are seeded for an item until they are put back.

    Args:
        stream: gives what to seed with, by the name of a library.

    Attributes:
        thread: identifier of the thread that runs the item.
    """

    def __init__(self, stream: Callable[[str], bytes]) -> None:
        self.thread = threading.get_ident()
        self._stream = stream
        self._before: _States = []
        self._seeded: set[str] = set()  # names of libraries
        self.begin()

    def begin(self, new: ModuleType | None = None) -> None:
        """Seed the generators of libraries that have been loaded.

        Args:
            new: a module whose code has just run; its import has not quite finished.
        """
        for name, generator in _GENERATORS.items():
            if name in self._seeded:
                continue
            is_new = getattr(new, "__name__", None) == name
            module = new if is_new else loaded(name)
            if module is not None:
                self._before.append((generator, module, generator.state(module)))
                self._seeded.add(name)
                generator.seed(module, self._stream(name))

    def state(self) -> _States:
        """Return the present states of the generators that were seeded."""
        return [
            (generator, module, generator.state(module)) for generator, module, _ in self._before
        ]

    def put_back(self) -> None:
        """Give all generators the states that they had before they were seeded."""
        _put_back(self._before)


def _put_back(states: _States) -> None:
    """Give generators their states."""
    for generator, module, state in states:
        generator.put_back(module, state)


# The streams of all items that run now, in any thread; those of an inner call come later.
_active: list[_Streams] = []
# Its ``asks`` and ``loads`` are whether the thread looks for a module, and whether it loads one.
_here = threading.local()


def _own_streams() -> _Streams | None:
    """Return the streams of the item that this thread runs, the innermost one; None for none."""
    thread = threading.get_ident()
    return next((one for one in reversed(tuple(_active)) if one.thread == thread), None)


@contextmanager
def _flagged(name: str) -> Iterator[None]:
    """Have an attribute of ``_here`` true meanwhile."""
    setattr(_here, name, True)
    try:
        yield
    finally:
        setattr(_here, name, False)


def _execute(run: Callable[[Any], Any], subject: Any) -> Any:
    """Run a step of an import, and leave the streams as they were; return what it returns."""
    streams = None if vars(_here).get("loads") else _own_streams()
    if streams is None:
        return run(subject)
    states = streams.state()
    try:
        with _flagged("loads"):
            return run(subject)
    finally:
        _put_back(states)


def _begin_all(new: ModuleType | None) -> None:
    """Seed, for all items that run, what has been loaded; the innermost one last."""
    for streams in tuple(_active):
        streams.begin(new)


class _Finder:
    """Has the modules that items import leave their streams as they were.

    It finds what the other finders find, and wraps the loader of the module whose import comes
    first; what that imports itself is left alone. In other threads the item may draw meanwhile, so
    nothing is put back there, and only a library with a generator is wrapped, to be seeded.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module, None where the import goes its own way."""
        state = vars(_here)
        if not _active or state.get("asks") or state.get("loads"):
            return None
        if name not in _GENERATORS and _own_streams() is None:
            return None
        with _flagged("asks"):  # another finder may ask all others, too
            for finder in tuple(sys.meta_path):
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = find and find(name, path, target)
                if spec is not None:
                    return _wrapped(spec)
        return None


def _wrapped(spec: ModuleSpec) -> ModuleSpec:
    """Return a copy of a spec with its loader wrapped, as its finder may give it again.

    A namespace has no loader; a loader of the old kind is used in another way.
    """
    if hasattr(spec.loader, "exec_module") and hasattr(spec.loader, "create_module"):
        spec = copy(spec)
        spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
    return spec


class _Loader:
    """Loads a module as its own loader does, and is in all else as that one.

    Args:
        loader: its own loader.
    """

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self).get("_loader"), name)  # a copy has nothing yet

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the new module, None for the usual one; the code of extensions may run here."""
        module: ModuleType | None = _execute(self._loader.create_module, spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        spec: Any = getattr(module, "__spec__", None)
        if getattr(spec, "loader", None) is self:
            spec.loader = self._loader
        is_inner = vars(_here).get("loads")
        done = None
        try:
            _execute(self._loader.exec_module, module)
            done = module
        finally:
            if not is_inner:
                _begin_all(done)


_finder = _Finder()


def _watch_imports() -> None:
    """Have the imports of items watched: its finder is the first.

    It stays: where one is removed while another thread goes through the list of finders, that one
    misses the next of them.
    """
    if not sys.meta_path or sys.meta_path[0] is not _finder:
        sys.meta_path[:] = [_finder, *(one for one in sys.meta_path if one is not _finder)]


if TYPE_CHECKING:
    # Of generators: the functions, the module, and the state.
    _States = list[tuple[_Generator, Any, Any]]
