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
from collections.abc import Callable
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


_here = threading.local()  # its ``depth`` is the number of seeded items that the thread is in


def inner_seed() -> int | None:
    """Return a seed for a call inside a seeded item, drawn from its stream; None outside."""
    if not vars(_here).get("depth"):
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
        finder = _Finder(streams)
        sys.meta_path.insert(0, finder)
        _here.depth = vars(_here).get("depth", 0) + 1
        try:
            return self.func(*args)
        finally:
            _here.depth -= 1
            sys.meta_path.remove(finder)
            finder.close()
            streams.put_back()


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
    """

    def __init__(self, stream: Callable[[str], bytes]) -> None:
        self._stream = stream
        self._before: list[tuple[_Generator, Any, Any]] = []  # with its module and its state
        self._seeded: dict[str, Any] = {}  # modules, by the name of their library
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
                self._seeded[name] = module
                generator.seed(module, self._stream(name))

    def state(self) -> list[tuple[_Generator, Any, Any]]:
        """Return each seeded generator with its module and its present state."""
        return [
            (generator, module, generator.state(module)) for generator, module, _ in self._before
        ]

    def put_back(self) -> None:
        """Give all generators the states that they had before they were seeded."""
        _put_back(self._before)


def _put_back(states: list[tuple[_Generator, Any, Any]]) -> None:
    """Give generators their states."""
    for generator, module, state in states:
        generator.put_back(module, state)


class _Finder:
    """Has the modules that an item imports leave its streams as they were.

    It finds what the other finders find, and wraps the loader of the module whose import comes
    first; what that imports itself is left alone. In other threads the item may draw meanwhile, so
    nothing is put back there, and only a library with a generator is wrapped, to be seeded.

    Args:
        streams: the streams of the item.
    """

    def __init__(self, streams: _Streams) -> None:
        self._streams: _Streams | None = streams
        self._thread = threading.get_ident()
        self._is_loading = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module, None where the import goes its own way."""
        if self._is_loading if self._is_own else name not in _GENERATORS:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(name, path, target)
            if spec is not None:
                # A namespace has no loader; a loader of the old kind is used in another way.
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None

    def load(self, execute: Callable[[ModuleType], object], module: ModuleType) -> None:
        """Run the code of a module, and put the streams back.

        Args:
            execute: runs it.
            module: the module.
        """
        streams = self._streams
        if streams is None or (self._is_own and self._is_loading):
            execute(module)  # by hand, with a spec that was kept
            return
        if not self._is_own:
            execute(module)
            streams.begin(module)
            return
        states = streams.state()
        self._is_loading = True
        try:
            execute(module)
        finally:
            self._is_loading = False
            _put_back(states)
            streams.begin(module)

    @property
    def _is_own(self) -> bool:
        """Whether this is the thread that runs the item."""
        return threading.get_ident() == self._thread

    def close(self) -> None:
        """Leave all imports alone from now on: the item is done."""
        self._streams = None


class _Loader:
    """Loads a module as its own loader does, and is in all else as that one.

    Args:
        loader: its own loader.
        finder: has found it.
    """

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self).get("_loader"), name)  # a copy has nothing yet

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._finder.load(self._loader.exec_module, module)
