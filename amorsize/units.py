"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """Return a time with a unit that suits it.

    >>> [duration(s) for s in (3.2e-8, 4.5e-5, 0.0123, 2.5, 600)]
    ['32 ns', '45 us', '12.3 ms', '2.5 s', '600 s']
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
