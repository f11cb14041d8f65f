"""Functions that draw random numbers, for ``test_seeding``; this module itself loads no NumPy."""

import random


def draw(x):
    """Return the item with numbers of Python's generator, and of NumPy's, which it loads."""
    import numpy

    return x, random.random(), float(numpy.random.random())


def draw_or_fail(x):
    if x == 5:
        raise LookupError("no 5")
    return draw(x)
