"""Functions and classes for tests: here, so that a spawned worker can import them."""

import decimal
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

HELPER_FACTOR = 3


def double(x):
    return 2 * x


def described(*args):
    """Return what the arguments are, so that they can be compared whatever their types."""
    return [(type(one).__name__, repr(one)) for one in args]


def helped(x):
    return HELPER_FACTOR * x


def divided(x):
    """Log the number, and divide in the decimal context of the thread."""
    logging.getLogger("ours").info("item %d", x)
    return str(decimal.Decimal(1) / decimal.Decimal(3))


def add(x, y):
    return x + y


def busy_ms(x):
    """Compute for about a millisecond; the bound of two time buckets is not near."""
    end = time.perf_counter() + 0.0013
    while time.perf_counter() < end:
        pass
    return 2 * x


def wait_5ms(x):
    time.sleep(0.005)
    return x


def wait_50ms(x):
    time.sleep(0.05)
    return x


def fail_on_multiples_of_30(x):
    if x and x % 30 == 0:
        raise ValueError(f"no {x}")
    return x


def exit_on_7(x):
    if x == 7:
        sys.exit("seven")
    return x


def interrupt_on_7(x):
    if x == 7:
        raise KeyboardInterrupt
    return x


def stop_on_7(x):
    if x == 7:
        raise StopIteration
    return x


class NeedsTwoError(Exception):
    """An exception that pickle can dump but not load."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raise_needs_two(x):
    if x == 7:
        raise NeedsTwoError("one", "two")
    return x


def leave_on_7(x):
    if x == 7:
        os._exit(3)
    return x


def log_call(path, x):
    """Append one line to a file for each call; short appends are atomic."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{x}\n")
    return x


def logged_calls(path):
    """Return the items of all calls of ``log_call``, sorted."""
    return sorted(map(int, Path(path).read_text(encoding="ascii").split()))


def leave_first_time(path, x):
    """End the worker that first meets item 7."""
    if x == 7:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return x
        os._exit(3)
    return x


def hang_on_3(x):
    if x == 3:
        time.sleep(60)
    return x


def generator_on_7(x):
    return (y for y in [x]) if x == 7 else x


def pid_of(_):
    return os.getpid()


class Scale:
    """Something with a bound method, a classmethod, a staticmethod and a call."""

    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return self.factor * x

    def __call__(self, x):
        return self.factor * x

    @classmethod
    def triple(cls, x):
        return 3 * x

    @staticmethod
    def half(x):
        return x / 2


STATE = {}


def set_state(key, value):
    STATE[key] = value


def read_state(key):
    return STATE.get(key)


def fail_to_start():
    raise RuntimeError("no start today")


def nested_sum(n):
    """Call smart_map inside a worker."""
    from amorsize import smart_map

    reports = []
    results = smart_map(double, range(n), n_jobs=2, report=reports.append)
    return sum(results), reports[0].backend, reports[0].warnings


def fail_late(x):
    """Take a while, and fail at item 20."""
    busy_ms(x)
    if x == 20:
        raise ValueError("twenty")
    return x


def exit_late(x):
    """Take a while, and exit at item 20."""
    busy_ms(x)
    if x == 20:
        sys.exit("twenty")
    return x


def stop_late(x):
    """Take a while, and raise StopIteration at item 20."""
    busy_ms(x)
    if x == 20:
        raise StopIteration
    return x


def total(array):
    return int(array.sum())


class Answering(Exception):
    """Takes attributes from a dictionary of its own, as wrappers of responses do."""

    def __init__(self, data):
        super().__init__("answer")
        self.data = data

    def __getattr__(self, name):
        return self.data[name]


class TwoPartError(Exception):
    """An exception that takes two arguments and keeps one."""

    def __init__(self, first, second):
        super().__init__(f"{first}{second}")


def raise_two_part(x):
    if x == 3:
        raise TwoPartError("a", "b")
    return x


class Unloadable:
    """Pickles, but does not unpickle."""

    def __reduce__(self):
        return (_never, ())


def _never():
    raise LookupError("cannot be loaded")


def unloadable_after_failure(x):
    """Item 0 fails late; item 1 gives at once what cannot be loaded."""
    if x == 0:
        time.sleep(0.3)
        raise KeyError("first")
    return Unloadable()


def slow_first_dead_third(x):
    if x == 0:
        time.sleep(0.5)
    if x == 2:
        time.sleep(0.1)
        os._exit(3)
    return x


def logged_hang_on_3(path, x):
    log_call(path, x)
    if x == 3:
        time.sleep(60)
    time.sleep(0.05)
    return x


def large_then_dead(where, x):
    """Return large results; item 5 ends its worker, at once or after a while."""
    if x == 5:
        time.sleep(0.1 if where == "mid" else 0)
        os._exit(3)
    return bytes(10**6)


def killed_once(marker, x):
    """Return x; the first to come ends its worker as the kernel would."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return x
    return os.kill(os.getpid(), signal.SIGKILL)


def killed_while_sending(marker, delay, x):
    """Return 30 MB; the first to reach item 5 is killed so many seconds after it began to."""
    if x == 5:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return bytes([x]) * 30_000_000


def imports_late(x):
    from tests import changing
    from tests.changing import FACTOR

    return x * FACTOR, changing.OPTIONAL


def dies_at_25(x):
    if x == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return x
