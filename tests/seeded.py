"""Functions that draw random numbers, for ``test_seeding``; this module itself loads no NumPy."""

import importlib
import random
import sys
import threading


def draw(x):
    """Return the item with numbers of Python's generator, and of NumPy's, which it loads."""
    import numpy

    return x, random.random(), float(numpy.random.random())


def draw_or_fail(x):
    if x == 5:
        raise LookupError("no 5")
    return draw(x)


def draw_after_import(item):
    """Return the item with a number of each generator, after importing a module the first time."""
    import numpy

    path, name, x = item
    sys.path.insert(0, path)
    try:
        importlib.import_module(name)
    except ImportError:
        pass
    finally:
        sys.path.remove(path)
    return x, random.random(), float(numpy.random.random())


def draw_after_a_threads_import(x):
    """Return the item with numbers, after another thread has imported NumPy."""
    thread = threading.Thread(target=importlib.import_module, args=("numpy.random",))
    thread.start()
    thread.join()
    return draw(x)
