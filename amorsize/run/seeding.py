"""A random stream for each item, whatever the workers and chunks.

Before an item, the global generators are seeded from the seed and the item's index; after it, they
are what they were before. The generators are those of ``random``, of NumPy (``numpy.random.seed``)
and of torch. A library is not loaded for that. If an item loads it, it is seeded then.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from functools import partial

from ..lookup import loaded
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
        stream = partial(stream_of, self._seed, self.index)
        self.index += 1
        undo = [
            seed(module, stream(name)) for name, seed in _SEEDS.items() if (module := loaded(name))
        ]
        finder = _Finder(stream, undo)
        sys.meta_path.insert(0, finder)
        _here.depth = vars(_here).get("depth", 0) + 1
        try:
            return self.func(*args)
        finally:
            _here.depth -= 1
            sys.meta_path.remove(finder)
            for put_back in undo:
                put_back()


def _seed_python(module: Any, stream: bytes) -> Callable[[], object]:
    state = module.getstate()
    module.seed(int.from_bytes(stream, "little"))
    return lambda: module.setstate(state)


def _seed_numpy(module: Any, stream: bytes) -> Callable[[], object]:
    state = module.get_state(legacy=False)
    words = [
        int.from_bytes(stream[at : at + _WORD], "little") for at in range(0, len(stream), _WORD)
    ]
    module.seed(words)
    return lambda: module.set_state(state)


def _seed_torch(module: Any, stream: bytes) -> Callable[[], object]:
    state = module.get_rng_state()
    module.manual_seed(int.from_bytes(stream[:_TORCH_BYTES], "little") >> 1)
    return lambda: module.set_rng_state(state)


_SEEDS: dict[str, Callable[[Any, bytes], Callable[[], object]]] = {
    "random": _seed_python,
    "numpy.random": _seed_numpy,
    "torch": _seed_torch,
}


class _Finder:
    """Has a library that an item loads seeded as soon as it is there.

    Args:
        stream: gives what to seed with, by the name of a library.
        undo: takes what puts the library's state back.
    """

    def __init__(self, stream: Callable[[str], bytes], undo: list[Callable[[], object]]) -> None:
        self._stream = stream
        self._undo = undo
        self._is_asking = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a library with a generator; None for any other module."""
        del path, target
        if name not in _SEEDS or self._is_asking:
            return None
        self._is_asking = True  # of the other finders
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, name, self._stream(name), self._undo)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads a library as its own loader does, and seeds it.

    Args:
        loader: its own loader.
        name: its name.
        stream: what to seed with.
        undo: takes what puts the library's state back.
    """

    def __init__(
        self, loader: Any, name: str, stream: bytes, undo: list[Callable[[], object]]
    ) -> None:
        self._undo = undo
        self._loader = loader
        self._name = name
        self._stream = stream

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the new module, None for the usual one."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module, and seed its generator."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._undo.append(_SEEDS[self._name](module, self._stream))
