"""A user's module whose values change while the program runs."""

import functools
import os
import threading
import time

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


# What tests of kept workers change and ask about ------------------------------------------

NOTHING = object()
LIMITS = [1, 2, 3]
SAME_LIMITS = LIMITS
FACTOR = 2
OPTIONAL = "there"


def or_nothing(x, default=NOTHING):
    """Ask about identity, as much code does."""
    return default is NOTHING, NOTHING is or_nothing.__defaults__[0]


def limits(_):
    SAME_LIMITS.append(0)
    try:
        return list(LIMITS), LIMITS is SAME_LIMITS
    finally:
        SAME_LIMITS.pop()


def step(x):
    return x + 1


def stepped(x):
    return step(x)


def logged(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x)

    return wrapper


@logged
def wrapped(x):
    return x + 1


def calls_wrapped(x):
    return wrapped(x)


class Shape:
    """Methods of every kind."""

    @property
    def side(self):
        return 1

    @staticmethod
    def scale(x):
        return x

    @classmethod
    def name(cls):
        return cls.__name__

    def __len__(self):
        return 1


def shape(x):
    return Shape().side, Shape.scale(x), Shape.name(), len(Shape())


def optional(_):
    try:
        return OPTIONAL
    except NameError:
        return "gone"


@functools.lru_cache
def remembered(x):
    return x * FACTOR


def remembers(x):
    return remembered(x)


def with_default(x, plus=1):
    return x + plus


class Moody:
    """An object that raises when it is looked at."""

    def __getattr__(self, name):
        if name == "__wrapped__":  # pytest asks for that as it looks for doctests
            raise AttributeError(name)
        raise RuntimeError(f"do not ask for {name}")

    def __reduce__(self):
        return Moody, ()


MOODY = Moody()
AFTER_MOODY = "as imported"


def uses_moody(_):
    return type(MOODY).__name__, AFTER_MOODY


def environment(name):
    return os.environ.get(name)


def slow_pid(_):
    time.sleep(0.005)
    return os.getpid()
