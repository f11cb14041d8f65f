"""Workers that take three seconds to open what they are started with."""

import time

from amorsize.run import worker


def slowly(make, args):
    time.sleep(3)
    return make(*args)


def make_slow():
    """Have workers that are started from now on take long."""
    real = worker.Setup.__reduce__
    worker.Setup.__reduce__ = lambda self: (slowly, real(self))
