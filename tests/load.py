"""Other programs on the CPUs, for tests of what a busy machine does to a call."""

import subprocess
import sys
from contextlib import contextmanager

LOOP = "print(flush=True)\nwhile True: pass"


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
