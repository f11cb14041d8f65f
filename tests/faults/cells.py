"""One cell of the fault matrix: how it fails, at what moment, in how many workers of which kind.

Run as a program: ``python -m tests.faults.cells METHOD WORKERS`` goes through all of them, each
under a deadline, prints a line for each, and checks after each that the next call works.
"""

import faulthandler
import multiprocessing
import os
import signal
import sys
from functools import partial

from amorsize import WorkerLostError, smart_map

ITEMS = 12
GUILTY = 5
DEADLINE_SECONDS = 60

WAYS = ("crash", "_exit", "exit", "error")
IN_WORKER = ("unpickling task", "running", "pickling result")
IN_CALLER = ("pickling task", "unpickling result")


def in_worker():
    return multiprocessing.parent_process() is not None


def fail(way):
    if way == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif way == "_exit":
        os._exit(7)
    elif way == "exit":
        sys.exit(7)
    raise RuntimeError("boom")


class Trap:
    """Fails when it is pickled or unpickled, in a worker or in the caller."""

    def __init__(self, way, pickling, worker):
        self.way, self.pickling, self.worker = way, pickling, worker

    def __reduce__(self):
        if self.pickling and in_worker() == self.worker:
            fail(self.way)
        return load, (self.way, self.pickling, self.worker)


def load(way, pickling, worker):
    if not pickling and in_worker() == worker:
        fail(way)
    return Trap(way, pickling, worker)


def item(moment, way, x):
    if x == GUILTY and moment.endswith("task"):
        return Trap(way, moment.startswith("pickling"), moment in IN_WORKER)
    return x


def work(moment, way, x):
    if x == GUILTY and moment == "running":
        fail(way)
    if x == GUILTY and moment.endswith("result"):
        return Trap(way, moment.startswith("pickling"), moment in IN_WORKER)
    return 0 if isinstance(x, Trap) else x


def outcome(moment, way, method, workers, chunksize):
    """Return what a call comes to, as a line of text."""
    # A generator: under fork the items of a list would be inherited, never pickled.
    items = (item(moment, way, x) for x in range(ITEMS))
    try:
        smart_map(partial(work, moment, way), items, n_jobs=workers, chunksize=chunksize,
                  mp_context=method, backend="process")  # fmt: skip
    except WorkerLostError as error:
        return f"WorkerLostError {error.index} {error.exitcode}"
    except BaseException as error:  # noqa: BLE001 - which one it is, is the question
        return type(error).__name__
    return "nothing"


def expected(moment, way, chunksize):
    """Return the lines that are right."""
    if way in ("crash", "_exit"):
        return {f"WorkerLostError {GUILTY} {-signal.SIGSEGV if way == 'crash' else 7}"}
    if moment == "pickling result":
        return {"SerializationError"}
    if moment == "unpickling result" and way == "error":
        return {"SerializationError"}
    if moment == "pickling task":
        return {"SystemExit"} if way == "exit" else {"SerializationError"}
    return {"SystemExit"} if way == "exit" else {"RuntimeError"}


def main(method, workers):
    bad = 0
    cells = [(moment, way) for moment in IN_WORKER for way in WAYS]
    cells += [(moment, way) for moment in IN_CALLER for way in ("exit", "error")]
    for moment, way in cells:
        for chunksize in (1, 4):
            faulthandler.dump_traceback_later(DEADLINE_SECONDS, exit=True)
            got = outcome(moment, way, method, workers, chunksize)
            after = smart_map(abs, range(-3, 0), n_jobs=workers, mp_context=method)
            right = got in expected(moment, way, chunksize) and after == [3, 2, 1]
            bad += not right
            print("ok " if right else "BAD", moment, way, chunksize, got, flush=True)
    faulthandler.cancel_dump_traceback_later()
    return bad


if __name__ == "__main__":
    # Cores and tracebacks of the crashes on purpose help nobody.
    faulthandler.disable()
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
