"""Other programs on the CPUs, for tests of what a busy machine does to a call."""

import subprocess
import sys
from contextlib import contextmanager

# What other programs do to one attempt they hardly do to so many.
ATTEMPTS = 5

LOOP = "print(flush=True)\nwhile True: pass"


def first_undisturbed(attempt, wanted):
    """Return the first of some attempts that gives what is wanted, else what the last one gives.

    For decisions that go by measured times: another program may make any one of them come out
    otherwise, and rightly.
    """
    for _ in range(ATTEMPTS):
        got = attempt()
        if got == wanted:
            break
    return got


@contextmanager
def busy_loops(count=4):
    """Have so many programs compute beside the test; they are there when this returns."""
    loops = [
        subprocess.Popen([sys.executable, "-S", "-c", LOOP], stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    try:
        for loop in loops:
            loop.stdout.readline()
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()
