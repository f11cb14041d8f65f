"""Text: count the words of many documents; the input is a generator, results are used at once.

python examples/word_count.py
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator

from amorsize import smart_imap_unordered

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "box",
]


def documents(count: int, seed: int = 7) -> Iterator[str]:
    """Yield made-up documents of very different lengths."""
    rng = random.Random(seed)
    for _ in range(count):
        yield " ".join(rng.choices(WORDS, k=rng.choice([50, 500, 50_000])))


def count_words(text: str) -> Counter[str]:
    """Count the words of one document."""
    return Counter(re.findall(r"[a-z]+", text.lower()))


def main() -> None:
    """Sum the counts as they arrive, so that neither documents nor counts accumulate."""
    total: Counter[str] = Counter()
    for counts in smart_imap_unordered(count_words, documents(120), progress="counting"):
        total += counts
    print(", ".join(f"{word} {count:,}" for word, count in total.most_common(5)))


if __name__ == "__main__":
    main()
