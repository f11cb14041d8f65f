"""Runs CPython's own tests of pools and executors against amorsize; ``test_cpython`` starts it.

    python -m tests.cpython pool|executor START_METHOD

It prints the tests that ran and those that were skipped, and ends with status 1 if any failed.
"""

import concurrent.futures
import importlib
import multiprocessing
import sys
import unittest

import amorsize

POOL = ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime")

# (module, class) of the tests that every executor of processes must pass.
EXECUTOR = (
    ("executor", "ExecutorTest"),
    ("test_as_completed", "AsCompletedTests"),
    ("test_init", "FailingInitializerMixin"),
    ("test_init", "InitializerMixin"),
    ("test_shutdown", "ExecutorShutdownTest"),
    ("test_wait", "WaitTests"),
)


def pool_cases(method):
    """Yield CPython's test classes of Pool, for processes."""
    multiprocessing.Pool = amorsize.Pool
    from test import _test_multiprocessing as source  # takes the Pool as it is now

    source.ProcessesMixin.Pool = staticmethod(amorsize.Pool)
    names = {"__name__": "__main__"}
    source.install_tests_in_module_dict(names, method, only_type="processes")
    sys.modules["__main__"].__dict__.update(names)
    for name in POOL:
        yield names["WithProcesses" + name[1:]]


def executor_cases(method):
    """Yield CPython's test mixins of executors, with SmartExecutor."""
    # The programs that the tests start import the executor from the standard library.
    concurrent.futures.SmartExecutor = amorsize.SmartExecutor
    for place, name in EXECUTOR:
        yield case(place, name, method)


def case(place, name, method):
    """Return a test class of a mixin."""
    if sys.version_info >= (3, 12):
        module = importlib.import_module(f"test.test_concurrent_futures.{place}")
        util = importlib.import_module("test.test_concurrent_futures.util")
    else:
        module = util = importlib.import_module("test.test_concurrent_futures")
    plain = module.__dict__.get("assert_python_ok")
    if plain is not None:
        module.assert_python_ok = lambda *args: plain(
            *(arg.replace("from concurrent.futures import SmartExecutor", IMPORT) for arg in args),
            PYTHONPATH=":".join(sys.path),
            __isolated=False,
        )
    mixin = {
        "fork": util.ProcessPoolForkMixin,
        "spawn": util.ProcessPoolSpawnMixin,
        "forkserver": util.ProcessPoolForkserverMixin,
    }[method]
    content = {"executor_type": amorsize.SmartExecutor, "__module__": __name__}
    return type(f"Smart{name}", (module.__dict__[name], mixin, util.BaseTestCase), content)


# One of the programs forgets to import multiprocessing; no executor of processes ever ran it.
IMPORT = "import multiprocessing; from amorsize import SmartExecutor"


def main(what, method):
    """Run the tests of one kind with one start method; return whether all passed."""
    cases = list((pool_cases if what == "pool" else executor_cases)(method))
    globals().update({case.__name__: case for case in cases})
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite(map(load, cases))
    if what == "pool":
        setUpModule()  # noqa: F821 - made above
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if what == "pool":
        tearDownModule()  # noqa: F821 - made above
    for test, reason in result.skipped:
        print("skipped", test.id().rpartition(".")[2], reason)
    print(f"\nran {result.testsRun}")  # the tests leave lines open
    return result.wasSuccessful()


if __name__ == "__main__":
    sys.path[:] = [path for path in sys.path if path] or sys.path
    sys.exit(not main(*sys.argv[1:]))
