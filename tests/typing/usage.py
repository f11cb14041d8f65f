"""What type checkers must understand of the public names; never run, only checked."""

# pyright: strict

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from amorsize import (
    OptimizationResult,
    ParallelFunction,
    RunReport,
    clear_cache,
    last_run,
    optimize,
    parallelize,
    smart_imap,
    smart_imap_async,
    smart_imap_unordered,
    smart_map,
    smart_map_async,
    smart_starmap,
)


def length(text: str) -> int:
    return len(text)


def times(text: str, number: int) -> str:
    return text * number


def five(a: int, b: str, c: bytes, d: float, e: bool) -> int:
    return 5


@parallelize
def bare(text: str) -> int:
    return len(text)


@parallelize(n_jobs=2, progress=True)
def with_options(text: str, times: int = 1) -> int:
    return len(text) * times


assert_type(smart_map(length, ["a"]), list[int])
assert_type(smart_map(pow, [1], [2], n_jobs=2), list[Any])
assert_type(smart_map(times, ["a"], [2]), list[str])
assert_type(smart_map(times, ["a"], [2], return_exceptions=True), list[str | Exception])
assert_type(smart_map(five, [1], [""], [b""], [1.0], [True]), list[int])
assert_type(smart_map(lambda *xs: len(xs), [1], [2], [3], [4], [5], [6], [7]), list[int])
assert_type(smart_map(int, ["1"]), list[int])
assert_type(smart_starmap(times, [("a", 2)]), list[str])
assert_type(smart_imap(times, ["a"], [2], return_exceptions=True), Iterator[str | Exception])
assert_type(smart_starmap(length, [("a",)]), list[int])
assert_type(smart_imap(length, ["a"], buffersize=3), Iterator[int])
assert_type(smart_imap_unordered(length, ["a"]), Iterator[int])
assert_type(bare("a"), int)
assert_type(bare.map(["a"]), list[int])
assert_type(with_options("a", times=2), int)
assert_type(with_options.options(n_jobs=1).imap(["a"]), Iterator[int])
assert_type(optimize(length, ["a"]), OptimizationResult)
assert_type(bare.last_run, RunReport | None)
assert_type(clear_cache(), int)
kept: ParallelFunction[[str], int] = bare
assert_type(last_run(), RunReport | None)


async def letters() -> AsyncIterator[str]:
    yield "a"


async def awaits() -> None:
    assert_type(await smart_map_async(length, ["a"], n_jobs=2), list[int])
    assert_type(await smart_map_async(length, letters()), list[int])
    assert_type(await smart_map_async(times, letters(), [2]), list[str])
    assert_type(await smart_map_async(length, ["a"], return_exceptions=True), list[int | Exception])
    assert_type(smart_imap_async(times, letters(), [2], buffersize=3), AsyncIterator[str])
    async for number in smart_imap_async(length, letters()):
        assert_type(number, int)
