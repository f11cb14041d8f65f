"""Mistakes that type checkers must report; each line with an ``error`` comment is one."""

# pyright: strict

from __future__ import annotations

from amorsize import (
    Pool,
    SmartExecutor,
    parallelize,
    smart_imap,
    smart_imap_async,
    smart_map,
    smart_map_async,
    smart_starmap,
)


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


@parallelize
def triple(x: int) -> int:
    return 3 * x


smart_map(double, ["wrong"])  # error
smart_map(add, [1], ["wrong"])  # error
smart_map(double, [1], n_job=2)  # error
smart_map(double, [1], n_jobs="two")  # error
smart_map(double, [1], buffersize=2)  # error
smart_map(double, [1], backend="threading")  # error
smart_map(double, 5)  # error
smart_map(double)  # error
smart_imap(double, ["wrong"], buffersize=2)  # error
smart_starmap(add, [1, 2])  # error
parallelize(n_job=2)  # error
triple("wrong")  # error
triple.map([1], n_job=2)  # error
strings: list[str] = smart_map(double, [1])  # error
Pool(2, workers=3)  # error
SmartExecutor(processes=2)  # error


async def awaits() -> None:
    await smart_map_async(double, ["wrong"])  # error
    await smart_map_async(double, [1], buffersize=2)  # error
    smart_imap_async(double, [1], n_job=2)  # error
    (await smart_map_async(double, [1]))[0].upper()  # error
    async for text in smart_imap_async(double, [1]):
        text.upper()  # error
