"""Values on their way between processes: pickled by pickle where it can, else by cloudpickle."""

from __future__ import annotations

import pickle
from collections import ChainMap
from io import BytesIO

from ..errors import SerializationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "dumps_inherited", "dumps_results", "dumps_shipped", "loads"]

loads = pickle.loads


def dumps(value: Any) -> bytes:
    """Pickle a value, with cloudpickle where pickle itself cannot.

    Raises:
        SerializationError: neither can.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - whatever a reduction raises, cloudpickle may know better
        return _by_value(value)


def dumps_shipped(value: Any) -> bytes:
    """Pickle what a worker must be able to load in a fresh interpreter.

    Functions and classes of ``__main__`` and of notebooks go by value: the worker's main module
    is not the caller's.

    Raises:
        SerializationError: it cannot be pickled.
    """
    return _by_value(value)


def dumps_inherited(value: Any) -> bytes:
    """Pickle a value for a process that is being started, as ``dumps_shipped`` does.

    Locks, queues and pipes of multiprocessing may travel this way, and only this way: it must be
    called from inside ``Process.start``.

    Raises:
        SerializationError: it cannot be pickled.
    """
    from multiprocessing.reduction import ForkingPickler  # only workers that start need it

    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = ChainMap(  # noqa: RUF012 - pickle looks for it by this name
            dict(ForkingPickler._extra_reducers),  # type: ignore[attr-defined]
            dict(cloudpickle.Pickler.dispatch_table),
        )

    buffer = BytesIO()
    try:
        Pickler(buffer).dump(value)
    except Exception as error:
        raise _refusal(value, error) from error
    return buffer.getvalue()


def dumps_results(results: list[Any], start: int) -> tuple[bytes, SerializationError | None]:
    """Pickle the results of a chunk, up to the first that cannot be.

    Args:
        results: results of consecutive items.
        start: index of the first item.

    Returns:
        The pickled list, and the error that names the first result left out, None if there is
        none.
    """
    try:
        return dumps(results), None
    except SerializationError:
        pass
    for offset, result in enumerate(results):
        try:
            dumps(result)
        except SerializationError as error:
            error.index = start + offset
            return dumps(results[:offset]), error
    # Each alone can be pickled, only the list cannot (too deep, too large).
    return dumps([]), SerializationError("the results of a chunk cannot be pickled", index=start)


def _by_value(value: Any) -> bytes:
    import cloudpickle  # 15 ms, and only what pickle refuses or a fresh interpreter needs it

    try:
        blob: bytes = cloudpickle.dumps(value)
    except Exception as error:
        raise _refusal(value, error) from error
    return blob


def _refusal(value: Any, error: Exception) -> SerializationError:
    return SerializationError(
        f"a value of type {type(value).__name__} cannot be sent to another process: "
        f"{type(error).__name__}: {error}"
    )
