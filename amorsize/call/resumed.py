"""Calls with ``resume=``: results are kept in a file, and only what is missing is computed.

The items whose results are not kept become the input of an ordinary session, together with their
indices. Its results are kept as they come, and put in their places among the others.
"""

from __future__ import annotations

import pickle
import re
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from ..errors import AmorsizeError, SerializationError
from ..identity.codes import describe
from ..identity.fingerprint import fingerprint
from ..memory.digests import DIGEST_BYTES, value_digest
from ..memory.results import ResultFile
from ..options import Options
from ..run.failure import add_note, short_repr
from ..run.feed import SLICEABLE
from ..run.numbered import Numbered
from ..run.reductions import attributes_of, dump
from ..units import counted
from ..versions import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..run.arrivals import Together
    from .latest import Finished, Latest
    from .session import Session

    class Make(Protocol):
        """Makes a session."""

        def __call__(
            self,
            func: Callable[..., Any],
            iterables: tuple[Any, ...],
            options: Options,
            *,
            star: bool,
        ) -> Session:
            """Return the session of a call."""
            ...


__all__ = ["ResumedSession"]


class ResumedSession:
    """A call whose results are kept in a file; it has the methods of a ``Session``.

    Args:
        func: the function, plain or decorated.
        plain: the plain function.
        iterables: the inputs.
        options: checked options.
        star: whether each item is a tuple of arguments.
        make: makes the session of what is missing.

    Attributes:
        latest: see ``Session``.

    Raises:
        ValueError: the file is of another call, has other items, or the function cannot be told
            from others.
        OSError: the file cannot be opened, or another process uses it.
        SerializationError: an item cannot be pickled.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        plain: Callable[..., Any],
        iterables: tuple[Any, ...],
        options: Options,
        *,
        star: bool,
        make: Make,
    ) -> None:
        self.latest: Latest | None = None
        self._func = func
        self._make = make
        self._iterables = iterables
        self._star = star
        self._options = options
        self._session: Session | None = None
        self._check: Callable[[], object] | None = None
        assert options.resume is not None
        self._path = str(options.resume)
        self._file = ResultFile(options.resume, _about(plain, options, star=star))
        self._places: _Places | _Read
        try:
            if all(type(data) in SLICEABLE for data in iterables):
                self._places = _Places(self._file, iterables, self._path)
            else:
                self._places = _Read(self._file, iterables, self._path)
        except BaseException:
            self._file.close()
            raise

    @property
    def finished(self) -> Finished | None:
        """The call that has computed what was missing; None before."""
        return None if self._session is None else self._session.finished

    def run_apart(self, check: Callable[[], object], arrivals: Together | None) -> None:
        """Have even the first items run in workers.

        Args:
            check: see ``Session.run_apart``.
            arrivals: not used: items are asked for, and waited for, one after the other.
        """
        del arrivals
        self._check = check

    # The forms ------------------------------------------------------------------------------

    def map(self) -> list[Any]:
        """Return all results in order."""
        found: dict[int, Any] = {}
        with self._open() as file:
            for index, result in self._missing(ordered=False):
                found[index] = result
            end = self._end
            for index, blob in file.results():
                if index < end and index not in found:
                    found[index] = pickle.loads(blob)
        return [found[index] for index in range(end)]

    def stream(self, *, ordered: bool, whole: bool = False) -> Generator[Any]:
        """Yield results as the consumer requests them; see ``Session.stream``."""
        with closing(self._in_order() if ordered else self._as_they_come()) as results:
            for index, result in results:
                yield (index, [result]) if whole else result

    def _in_order(self) -> Generator[tuple[int, Any]]:
        with self._open() as file:
            following = 0
            for index, result in self._missing(ordered=True):
                for before in range(following, index):
                    yield before, pickle.loads(file.result(before))
                following = index + 1
                yield index, result
            for index in range(following, self._end):
                yield index, pickle.loads(file.result(index))

    def _as_they_come(self) -> Generator[tuple[int, Any]]:
        with self._open() as file:
            done = set()
            for index, result in self._missing(ordered=False):
                done.add(index)
                yield index, result
            for index in range(self._end):
                if index not in done:
                    yield index, pickle.loads(file.result(index))

    # What is missing ------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        """Number of results: fewer than items where the function has ended the map."""
        missing = self._places.unfinished
        return self._places.size if missing is None else missing

    def _missing(self, *, ordered: bool) -> Generator[tuple[int, Any]]:
        """Compute what is missing; keep and yield (index, result) of each item."""
        session = self._session = self._session_of_missing()
        session.latest = self.latest
        if self._check is not None:
            session.run_apart(self._check, None)
        with closing(session.stream(ordered=ordered, whole=True)) as parts:
            for start, results in parts:
                for position, result in enumerate(results, start):
                    index, digest = self._places.take(position)
                    if not (self._options.return_exceptions and isinstance(result, Exception)):
                        self._file.keep(index, digest, _pickled(result, index))
                    yield index, result

    def _session_of_missing(self) -> Session:
        """Return the session that computes what is missing: an ordinary one if that is all."""
        places, options = self._places, self._options
        if places.inputs is None:
            return self._make(self._func, self._iterables, options, star=self._star)
        star = self._star or len(self._iterables) > 1
        numbered = Numbered(self._func, star=star, seed=options.seed)
        return self._make(numbered, places.inputs, options._replace(seed=None), star=places.pairs)

    def _open(self) -> _Closing:
        return _Closing(self._file, self._places, self._path)


class _Closing:
    """Closes the file at the end of a call, and tells an exception what is kept.

    Args:
        file: the file.
        places: where the items that were missing belong.
        path: of the file.
    """

    def __init__(self, file: ResultFile, places: _Places | _Read, path: str) -> None:
        self._file = file
        self._places = places
        self._path = path

    def __enter__(self) -> ResultFile:
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, GeneratorExit):
            _renumber(error, self._places)
            if kept := len(self._file):
                results = counted(kept, "result is kept", "results are kept")
                add_note(error, f"{results} in {self._path}; the same call computes the rest")
        self._file.close()


# Where items belong -------------------------------------------------------------------------


class _Places:
    """Where the missing items of inputs in memory belong.

    Args:
        file: the file of results.
        iterables: the inputs.
        path: of the file.

    Attributes:
        inputs: the indices of the items whose results are missing, and these items; None if they
            are all of them.
        pairs: whether the two come as pairs.
        size: number of all items.

    Raises:
        ValueError: an item differs from the one whose result is kept.
    """

    pairs = False

    def __init__(self, file: ResultFile, iterables: tuple[Any, ...], path: str) -> None:
        self.size = min(map(len, iterables))
        self._indices, self._digests = array("q"), bytearray()
        missing: list[Any] = []
        with closing(file.digests()) as kept:
            known = next(kept, None)
            is_new = known is None
            for index, item in enumerate(_items(iterables)):
                digest = _digest_of(item, index)
                if known is not None and known[0] == index:
                    _check_digest(digest, known[1], index, item, path)
                    known = next(kept, None)
                    continue
                self._indices.append(index)
                self._digests += digest
                if not is_new:
                    missing.append(item)
        self.inputs: tuple[Any, ...] | None = None if is_new else ([*self._indices], missing)
        self._done = bytearray(len(self._indices))

    @property
    def unfinished(self) -> int | None:
        """Index of the first item that has no result, None if there is none."""
        position = self._done.find(0)
        return None if position < 0 else self._indices[position]

    def take(self, position: int) -> tuple[int, bytes]:
        """Return (index, digest) of the missing item at a position, which has its result now."""
        self._done[position] = 1
        begin = position * DIGEST_BYTES
        return self._indices[position], bytes(self._digests[begin : begin + DIGEST_BYTES])

    def get(self, position: int) -> int:
        """Return the index of the missing item at a position."""
        return self._indices[position]


class _Read:
    """The same for inputs that are read as they are needed.

    Args:
        file: the file of results.
        iterables: the inputs.
        path: of the file.
    """

    pairs = True

    def __init__(self, file: ResultFile, iterables: tuple[Any, ...], path: str) -> None:
        self.size = 0
        self.inputs: tuple[Any, ...] | None = (self._missing(file, iterables, path),)
        self._out: dict[int, tuple[int, bytes]] = {}

    def _missing(
        self, file: ResultFile, iterables: tuple[Any, ...], path: str
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, item) of the items whose results are not kept."""
        position = 0
        for index, item in enumerate(_items(iterables)):
            digest, known = _digest_of(item, index), file.digest(index)
            if known is not None:
                _check_digest(digest, known, index, item, path)
            else:
                self._out[position] = index, digest
                position += 1
            self.size = index + 1
            if known is None:
                yield index, item

    @property
    def unfinished(self) -> int | None:
        """Index of the first item that has no result, None if there is none."""
        return min((index for index, _ in self._out.values()), default=None)

    def take(self, position: int) -> tuple[int, bytes]:
        """Return (index, digest) of the missing item at a position, which has its result now."""
        return self._out.pop(position)

    def get(self, position: int) -> int:
        """Return the index of the missing item at a position."""
        return self._out[position][0] if position in self._out else position


def _items(iterables: tuple[Any, ...]) -> Any:
    return iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)


# What results are of ------------------------------------------------------------------------


def _about(func: Callable[..., Any], options: Options, *, star: bool) -> dict[str, str]:
    """Return what the results of a call are of, by name."""
    found = fingerprint(func)
    if not found.stable:
        raise ValueError(
            f"resume={str(options.resume)!r}: {func!r:.80} uses something that cannot be compared "
            "with what a later call uses (an open file, an opaque object), so its results cannot "
            "be kept"
        )
    code = getattr(getattr(func, "__func__", func), "__code__", None)
    return {
        "the Python version": NAME,
        "the function": getattr(func, "__qualname__", type(func).__qualname__),
        "the function's code": "-" if code is None else describe(code).digest.hex(),
        "what the function uses": found.digest,
        "the way of the arguments": "starmap" if star else "map",
        "seed": str(options.seed),
    }


def _digest_of(item: Any, index: int) -> bytes:
    try:
        return value_digest(item)
    except Exception as error:
        raise SerializationError(
            f"resume: item {index} cannot be compared with that of a later call: "
            f"{short_repr(item)} cannot be pickled ({type(error).__name__}: {error})",
            index=index,
        ) from error


def _check_digest(digest: bytes, known: bytes, index: int, item: Any, path: str) -> None:
    if digest != bytes(known):
        raise ValueError(
            f"resume={path!r} keeps the results of other items: item {index} is now "
            f"{short_repr(item)}; give another path, or delete the file"
        )


def _pickled(result: Any, index: int) -> bytes:
    """Return a pickled result, by name where another process finds that name."""
    try:
        return dump(result)[0]
    except Exception:  # noqa: BLE001 - tried again below
        from cloudpickle import cloudpickle  # takes 15 ms to load
    try:
        return bytes(cloudpickle.dumps(result))
    except Exception as error:
        raise SerializationError(
            f"resume: the result of item {index} cannot be kept: {short_repr(result)} cannot be "
            f"pickled ({type(error).__name__}: {error})",
            index=index,
        ) from error


_ITEM = re.compile(r"\b(item|items) (\d+)(?: to (\d+))?")
_OF_RESULTS = "amorsize: raised while the results of items "


def _renumber(error: BaseException, places: _Places | _Read) -> None:
    """Name items by their index in the whole input, in errors and notes that do not know it.

    Notes that name an item were added where its index is known (``Numbered``).

    Args:
        error: the exception.
        places: gives the index of a missing item.
    """
    if places.inputs is None:
        return

    def index(match: re.Match[str]) -> str:
        last = "" if match[3] is None else f" to {places.get(int(match[3]))}"
        return f"{match[1]} {places.get(int(match[2]))}{last}"

    def renamed(text: Any) -> Any:
        # Only once: what follows may be the user's own text.
        return _ITEM.sub(index, text, count=1) if isinstance(text, str) else text

    notes = attributes_of(error).get("__notes__")
    if type(notes) is list:
        notes[:] = [
            renamed(note) if isinstance(note, str) and note.startswith(_OF_RESULTS) else note
            for note in notes
        ]
    own = getattr(error, "index", None) if isinstance(error, AmorsizeError) else None
    if own is not None:
        error.index = places.get(own)  # type: ignore[attr-defined]
        error.args = tuple(map(renamed, error.args))
