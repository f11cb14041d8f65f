"""A user's module whose values change while the program runs."""

import os
import threading

SCALE = 1
TABLE = {"plus": 0}
LOCK = threading.Lock()


class Config:
    """Settings kept as attributes of a class."""

    shift = 0


def helper(x):
    return x * SCALE + TABLE["plus"] + Config.shift


def compute(x):
    with LOCK:
        return helper(x)


def pid(_):
    return os.getpid()


class Counted:
    """A callable that counts how often it is pickled."""

    pickled = 0

    def __call__(self, x):
        return x

    def __reduce__(self):
        Counted.pickled += 1
        return Counted, ()
