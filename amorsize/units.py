"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["counted", "duration"]


def duration(seconds: float) -> str:
    """Return a time with a unit that suits it.

    >>> [duration(s) for s in (3.2e-8, 4.5e-5, 0.0123, 2.5, 600)]
    ['32 ns', '45 us', '12.3 ms', '2.5 s', '600 s']
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def counted(number: float, one: str, many: str = "") -> str:
    """Return a number with what it counts, in the singular where it is one.

    Args:
        number: how many; shown without decimals.
        one: what to say of one.
        many: what to say of any other number; by default ``one`` with an s.

    >>> counted(1, "item"), counted(2_000, "item"), counted(0, "process", "processes")
    ('1 item', '2,000 items', '0 processes')
    >>> counted(1, "item was", "items were")
    '1 item was'
    """
    shown = f"{number:,.0f}"
    return f"{shown} {one if shown == '1' else many or one + 's'}"
