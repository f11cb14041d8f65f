"""Calls with ``resume=``: results are kept in a file, and only what is missing is computed.

The items whose results are not kept become the input of an ordinary session, together with their
indices. Its results are kept as they come, and put in their places among the others.
"""

from __future__ import annotations

import pickle
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

from ..errors import SerializationError
from ..memory.digests import DIGEST_BYTES, value_digest
from ..memory.results import OtherCallError, ResultFile
from ..options import Options
from ..run.failure import add_note, has_item_note, short_repr
from ..run.feed import SLICEABLE
from ..run.numbered import Numbered
from ..run.reductions import dump
from ..units import counted
from .resumable import about, used_by

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
        self._plain = plain
        self._make = make
        self._iterables = iterables
        self._star = star
        self._options = options
        self._session: Session | None = None
        self._check: Callable[[], object] | None = None
        assert options.resume is not None
        path = self._path = str(options.resume)
        told = about(plain, path, seed=options.seed, star=star)
        file = self._file = ResultFile(options.resume, told, used_by(plain))
        self._places: _Places | _Read
        try:
            if all(type(data) in SLICEABLE for data in iterables):
                self._places = _Places(file, iterables, path)
            else:
                self._places = _Read(file, iterables, path)
        except BaseException:  # also Ctrl-C while an input is read: nothing else would close it
            file.close()
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
        with closing(self._in_order()) as results:
            return [result for _, result in results]

    def stream(self, *, ordered: bool, whole: bool = False) -> Generator[Any]:
        """Yield results as the consumer requests them; see ``Session.stream``."""
        with closing(self._in_order() if ordered else self._as_they_come()) as results:
            for index, result in results:
                yield (index, [result]) if whole else result

    def _in_order(self) -> Generator[tuple[int, Any]]:
        """Yield (index, result), the kept ones in their places."""
        with self._open():
            following = 0
            for index in self._places.first_known():
                following = index + 1
                yield index, self._known(index)
            for index, result in self._missing(ordered=True):
                for before in range(following, index):
                    yield before, self._known(before)
                following = index + 1
                yield index, result
            for index in range(following, self._end):
                yield index, self._known(index)

    def _as_they_come(self) -> Generator[tuple[int, Any]]:
        """Yield (index, result), the kept ones as their items are read."""
        with self._open():
            for index in self._places.first_known():
                yield index, self._known(index)
            passed = self._places.passed
            for pair in self._missing(ordered=False):
                while passed:
                    index = passed.popleft()
                    yield index, self._known(index)
                yield pair
            for index in passed:
                if index < self._end:
                    yield index, self._known(index)

    def _known(self, index: int) -> Any:
        """Return a kept result."""
        try:
            return pickle.loads(self._file.result(index))
        except Exception as error:  # unpickling may run any code, and raise anything
            raise SerializationError(
                f"resume={self._path!r}: the result of item {index} was kept and cannot be opened "
                f"({type(error).__name__}: {error}); delete the file to compute all anew",
                index=index,
            ) from error

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
        session.settled = self._settled
        session.kept = len(self._file)
        if self._check is not None:
            session.run_apart(self._check, None)
        with closing(session.stream(ordered=ordered, whole=True)) as parts:
            for start, results in parts:
                for position, result in enumerate(results, start):
                    self._keep(position, result)  # of an item that ran here first
                    yield self._places.take(position), result

    def _settled(self, start: int, results: list[Any]) -> None:
        """Keep what came from workers; whatever ends this process now, it is in the file."""
        for position, result in enumerate(results, start):
            self._keep(position, result)
        self._file.write()

    def _keep(self, position: int, result: Any) -> None:
        found = self._places.to_keep(position)
        if found is None:
            return
        raised = isinstance(result, Exception) and self._options.return_exceptions
        if not (raised and has_item_note(result)):  # what an item has raised is tried again
            index, digest = found
            self._file.keep(index, digest, _pickled(result, index))

    def _session_of_missing(self) -> Session:
        """Return the session that computes what is missing: an ordinary one if that is all."""
        places, options = self._places, self._options
        if places.inputs is None:
            return self._make(self._func, self._iterables, options, star=self._star)
        if options.total is not None:
            options = options._replace(total=max(0, options.total - len(self._file)))
        star = self._star or len(self._iterables) > 1
        numbered = Numbered(self._func, star=star, seed=options.seed)
        return self._make(numbered, places.inputs, options._replace(seed=None), star=places.pairs)

    def _open(self) -> _Closing:
        return _Closing(self._file, self._path, self._plain)


class _Closing:
    """Closes the file at the end of a call, and tells an exception what is kept.

    Args:
        file: the file.
        path: its path.
        func: the function; what it has changed of what it uses is no change for a later call.
    """

    def __init__(self, file: ResultFile, path: str, func: Callable[..., Any]) -> None:
        self._file = file
        self._path = path
        self._func = func

    def __enter__(self) -> None:
        """Do nothing: the file is open."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is not None and not isinstance(error, (GeneratorExit, OSError)):
                self._file.write()
                if kept := len(self._file):
                    results = counted(kept, "result is kept", "results are kept")
                    add_note(error, f"{results} in {self._path}; the same call computes the rest")
            self._file.accept(used_by(self._func))
        finally:
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
        passed: indices of kept results whose items were read, and which were not yielded.
        size: number of all items.

    Raises:
        ValueError: an item differs from the one whose result is kept.
    """

    pairs = False

    def __init__(self, file: ResultFile, iterables: tuple[Any, ...], path: str) -> None:
        self.size = min(map(len, iterables))
        self.passed: deque[int] = deque()
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
                    self.passed.append(index)
                    continue
                self._indices.append(index)
                self._digests += digest
                if not is_new:
                    missing.append(item)
        self.inputs: tuple[Any, ...] | None = None if is_new else ([*self._indices], missing)
        self._kept = bytearray(len(self._indices))  # whether the result was kept
        self._done = bytearray(len(self._indices))  # whether it was yielded

    def first_known(self) -> Iterator[int]:
        """Yield the indices of kept results before the first missing one."""
        first = self._indices[0] if self._indices else self.size
        while self.passed and self.passed[0] < first:
            yield self.passed.popleft()

    @property
    def unfinished(self) -> int | None:
        """Index of the first item that has no result, None if there is none."""
        position = self._done.find(0)
        return None if position < 0 else self._indices[position]

    def to_keep(self, position: int) -> tuple[int, bytes] | None:
        """Return (index, digest) of the missing item at a position; None if it was asked before."""
        if self._kept[position]:
            return None
        self._kept[position] = 1
        begin = position * DIGEST_BYTES
        return self._indices[position], bytes(self._digests[begin : begin + DIGEST_BYTES])

    def take(self, position: int) -> int:
        """Return the index of the missing item at a position, whose result is yielded now."""
        self._done[position] = 1
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
        self.passed: deque[int] = deque()
        self._file = file
        self._path = path
        self._read = enumerate(_items(iterables))
        self._first: list[tuple[int, Any, bytes]] = []  # the first missing item, once it was read
        self._out: dict[int, tuple[int, bytes]] = {}  # items without a result that was yielded
        self._kept: set[int] = set()  # positions whose results were kept
        self.inputs: tuple[Any, ...] | None = (self._missing(),)

    def first_known(self) -> Iterator[int]:
        """Yield the indices of kept results before the first missing one, as they are read."""
        for index, item in self._read:
            digest = _digest_of(item, index)
            known = self._file.digest(index)
            if known is None:
                self._first.append((index, item, digest))
                return
            _check_digest(digest, known, index, item, self._path)
            self.size = index + 1
            yield index

    def _missing(self) -> Iterator[tuple[int, Any]]:
        """Yield (index, item) of the items whose results are not kept."""
        position = 0
        for index, item, digest in self._first:
            self._out[position], self.size = (index, digest), index + 1
            yield index, item
        for index, item in self._read:
            digest, known = _digest_of(item, index), self._file.digest(index)
            if known is not None:
                _check_digest(digest, known, index, item, self._path)
                self.size = index + 1
                self.passed.append(index)
                continue
            position += 1
            self._out[position], self.size = (index, digest), index + 1
            yield index, item

    @property
    def unfinished(self) -> int | None:
        """Index of the first item that has no result, None if there is none."""
        return min((index for index, _ in self._out.values()), default=None)

    def to_keep(self, position: int) -> tuple[int, bytes] | None:
        """Return (index, digest) of the missing item at a position; None if it was asked before."""
        if position in self._kept:
            return None
        self._kept.add(position)
        return self._out[position]

    def take(self, position: int) -> int:
        """Return the index of the missing item at a position, whose result is yielded now."""
        self._kept.discard(position)
        return self._out.pop(position)[0]


def _items(iterables: tuple[Any, ...]) -> Any:
    return iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False)


def _digest_of(item: Any, index: int) -> bytes:
    try:
        return value_digest(item)
    except Exception as error:  # a reduction may be any code, and raise anything
        raise SerializationError(
            f"resume: item {index} cannot be compared with that of a later call: "
            f"{short_repr(item)} cannot be pickled ({type(error).__name__}: {error})",
            index=index,
        ) from error


def _check_digest(digest: bytes, known: bytes, index: int, item: Any, path: str) -> None:
    if digest != bytes(known):
        raise OtherCallError(
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
    except Exception as error:  # a reduction may be any code, and raise anything
        raise SerializationError(
            f"resume: the result of item {index} cannot be kept: {short_repr(result)} cannot be "
            f"pickled ({type(error).__name__}: {error})",
            index=index,
        ) from error
