"""Workloads as people bring them to a pool, small enough to be repeated: functions and data.

Functions are at module level, and each process makes the data anew. So every start method and every
package can run them.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["WORKLOADS", "Workload"]


@dataclass(frozen=True)
class Workload:
    """A function and its data.

    Attributes:
        func: what to call.
        data: returns the items.
        items: how many there are.
        waiting: whether ``func`` waits rather than computes, so that many workers may pay off.
        lazy: whether the data is a generator.
    """

    func: Callable[[Any], Any]
    data: Callable[[], Iterable[Any]]
    items: int
    waiting: bool = False
    lazy: bool = False


def count(n: int) -> int:
    total = 0
    for i in range(n):
        total += i
    return total


def add_one(x: int) -> int:
    return x + 1


def ten_us(x: int) -> int:
    return count(200) + x


def one_ms(x: int) -> int:
    return count(20_000) + x


def rising(x: int) -> int:
    return count(20 * x)


def falling(x: int) -> int:
    return count(20 * (1_500 - x))


def heavy_tail(x: int) -> int:
    return count(400_000 if x % 100 == 37 else 4_000)


def cheap_then_dear(x: int) -> int:
    return count(50 if x < 1_000 else 10_000)


def dear_then_cheap(x: int) -> int:
    return count(10_000 if x < 30 else 20)


def one_giant(x: int) -> int:
    return count(4_000_000 if x == 700 else 2_000)


def is_prime(n: int) -> bool:
    return n > 1 and all(n % k for k in range(2, int(n**0.5) + 1))


def parse(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return {key: len(value) for key, value in found.items()}


def compress(data: bytes) -> bytes:
    return zlib.compress(data, 6)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def total_of(array: Any) -> float:
    return float(sum(float((array * k).sum()) for k in range(10)))


def make_array(x: int) -> Any:
    import numpy

    return numpy.full(1_000_000, float(x))


def transform(array: Any) -> Any:
    import numpy

    return numpy.sqrt(numpy.abs(numpy.sin(array)))


def wait_5ms(x: int) -> int:
    time.sleep(0.005)
    return x


def fetch_and_parse(x: int) -> int:
    time.sleep(0.004)
    return count(10_000) + x


def texts() -> list[str]:
    rng = random.Random(1)
    return [
        json.dumps({f"key{k}": [rng.random() for _ in range(30)] for k in range(6)})
        for _ in range(5_000)
    ]


def blocks() -> list[bytes]:
    rng = random.Random(2)
    words = [rng.randbytes(6) for _ in range(400)]
    return [b" ".join(rng.choices(words, k=4_000)) for _ in range(200)]


def large_blocks() -> list[bytes]:
    rng = random.Random(3)
    return [rng.randbytes(1_000_000) for _ in range(150)]


def arrays(number: int, size: int) -> list[Any]:
    import numpy

    return [numpy.full(size, float(k)) for k in range(number)]


WORKLOADS: dict[str, Workload] = {
    "1,000 of 30 ns": Workload(add_one, lambda: list(range(1_000)), 1_000),
    "100,000 of 30 ns": Workload(add_one, lambda: list(range(100_000)), 100_000),
    "1,000 of 10 us": Workload(ten_us, lambda: list(range(1_000)), 1_000),
    "20,000 of 10 us": Workload(ten_us, lambda: list(range(20_000)), 20_000),
    "20,000 of 10 us, generated": Workload(
        ten_us, lambda: (x for x in range(20_000)), 20_000, lazy=True
    ),
    "300 of 1 ms": Workload(one_ms, lambda: list(range(300)), 300),
    "cost rising with the index": Workload(rising, lambda: list(range(1_500)), 1_500),
    "cost falling with the index": Workload(falling, lambda: list(range(1_500)), 1_500),
    "one in a hundred heavy": Workload(heavy_tail, lambda: list(range(1_000)), 1_000),
    "cheap, then dear": Workload(cheap_then_dear, lambda: list(range(2_000)), 2_000),
    "dear, then cheap": Workload(dear_then_cheap, lambda: list(range(2_000)), 2_000),
    "one giant": Workload(one_giant, lambda: list(range(2_000)), 2_000),
    "primes": Workload(is_prime, lambda: list(range(10_000_001, 10_004_001, 2)), 2_000),
    "parsing JSON": Workload(parse, texts, 5_000),
    "compressing": Workload(compress, blocks, 200),
    "hashing 1 MB": Workload(digest, large_blocks, 150),
    "8 MB arrays in": Workload(total_of, lambda: arrays(24, 1_000_000), 24),
    "8 MB arrays out": Workload(make_array, lambda: list(range(24)), 24),
    "1 MB arrays in and out": Workload(transform, lambda: arrays(150, 125_000), 150),
    "400 waits of 5 ms": Workload(wait_5ms, lambda: list(range(400)), 400, waiting=True),
    "waiting and computing": Workload(fetch_and_parse, lambda: list(range(200)), 200, waiting=True),
}
