"""Arrays: compute a picture row by row with NumPy; rows inside the set take much longer.

python examples/mandelbrot.py
"""

from __future__ import annotations

import numpy as np

from amorsize import smart_map

WIDTH, HEIGHT, DEPTH = 600, 400, 200


def row(y: int) -> np.ndarray:
    """Return the escape times of one row of pixels."""
    c = np.linspace(-2.2, 0.8, WIDTH) + 1j * (2.4 * y / HEIGHT - 1.2)
    z = np.zeros_like(c)
    steps = np.zeros(WIDTH, dtype=np.int16)
    alive = np.ones(WIDTH, dtype=bool)
    for _ in range(DEPTH):
        z[alive] = z[alive] ** 2 + c[alive]
        alive &= np.abs(z) <= 2
        steps += alive
        if not alive.any():
            break
    return steps


def main() -> None:
    """Print the picture as characters, and how it was computed."""
    rows = smart_map(row, range(HEIGHT), report=lambda report: print(report.explain()))
    picture = np.array(rows)
    shades = np.array(list(" .:-=+*#%@"))
    for line in picture[:: HEIGHT // 20]:
        print("".join(shades[line[:: WIDTH // 70] * (len(shades) - 1) // DEPTH]))


if __name__ == "__main__":
    main()
