"""Format numbers for people to read."""

from __future__ import annotations

__all__ = ["counted", "duration", "memory", "times"]


def duration(seconds: float) -> str:
    """Return a time with a unit that suits it.

    >>> [duration(s) for s in (3.2e-8, 4.5e-5, 0.0123, 2.5, 600)]
    ['32 ns', '45 us', '12.3 ms', '2.5 s', '600 s']
    >>> [duration(s) for s in (0.9999, 5_400)]
    ['1 s', '5,400 s']
    """
    # The largest unit in which the number, rounded to three digits, is at least 1.
    fitting = (unit for unit in _UNITS if seconds >= 0.9995 * unit[1])
    unit, size = next(fitting, _UNITS[-1])
    number = seconds / size
    return f"{number:,.0f} {unit}" if number >= 999.5 else f"{number:.3g} {unit}"


_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def memory(size: float) -> str:
    """Return a number of bytes with a unit that suits it.

    >>> memory(8_000_000_000), memory(41_300_000)
    ('8.0 GB', '41.3 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def times(factor: float) -> str:
    """Return a factor with its significant digits; a small factor is a fraction, not zero.

    >>> [times(n) for n in (1.55, 24_151.7, 0.964, 0.00004)]
    ['1.55', '24,000', '0.96', '1/25,000']
    """
    if factor < 0.1:
        return f"1/{times(1 / max(factor, 1e-12))}"
    return f"{factor:.2f}" if factor < 9.995 else f"{float(f'{factor:.2g}'):,.0f}"


def counted(number: float, one: str, many: str = "") -> str:
    """Return a number with a noun, in the singular if the number is shown as 1.

    Args:
        number: how many; shown without decimals.
        one: the noun in the singular.
        many: the noun in the plural; by default ``one`` with an s.

    >>> counted(1, "item"), counted(2_000, "item"), counted(0, "process", "processes")
    ('1 item', '2,000 items', '0 processes')
    >>> counted(1, "item was", "items were")
    '1 item was'
    """
    shown = f"{number:,.0f}"
    return f"{shown} {one if shown == '1' else many or one + 's'}"
