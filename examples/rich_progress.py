"""Progress by another library: the callable feeds a bar of rich.

python examples/rich_progress.py    (pip install rich)
"""

from __future__ import annotations

import hashlib

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from amorsize import smart_map

ITEMS = 400


def digest(number: int) -> str:
    """Return a digest that takes some ms to compute."""
    return hashlib.pbkdf2_hmac("sha256", b"amorsize", str(number).encode(), 4_000).hex()


def main() -> None:
    """Hash some numbers, and show how many are done."""
    columns = ("[bold]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        bar = shown.add_task("hashing", total=ITEMS)
        digests = smart_map(
            digest,
            range(ITEMS),
            progress=lambda done, total: shown.update(bar, completed=done, total=total),
        )
    print(f"{len(set(digests))} different digests")


if __name__ == "__main__":
    main()
