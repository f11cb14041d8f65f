"""The service of a pool: a thread that deals with its workers.

It sends them orders, takes their answers in, and replaces those that have ended.

Only that thread touches the books and the workers' channels. Other threads put what they want into
an inbox and wake it. What an outcome is for (a result, a future) is the business of its ticket.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress

from ..errors import SerializationError, WorkerLostError
from ..run.crew import CannotStart
from ..run.failure import Failure, keep
from ..run.losses import explain_idle, explain_running, explain_stuck
from ..run.shared import make_prefix
from .books import Books, Source, Ticket
from .orders import Raised
from .packing import Packing
from .posting import Posting, settle
from .staff import Staff
from .wire import opened_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..run.crew import Lost
    from ..run.start import Recipe
    from ..run.transport import Parcel
    from .attendant import Attendant

__all__ = ["CLOSE", "RUN", "TERMINATE", "Service"]

# While workers have orders, they are looked at this often: one may be stuck, or its death unseen.
LOOK_SECONDS = 0.1
# The look is at most so many times later, while more and more orders come in.
LATE_TIMES = 10
# The pool gives up after more than this many workers in a row that ended before they were ready.
MOST_FUTILE = 3
# How much the time of the last order counts in the mean.
FRESHNESS = 0.2
# How long to wait at a time for room for more orders.
ROOM_SECONDS = 0.002

# What a service does: it takes orders; it takes none, and ends when all are answered; it ends.
RUN, CLOSE, TERMINATE = "RUN", "CLOSE", "TERMINATE"


class Service:
    """Workers that answer orders until the service is closed.

    Args:
        recipe: how to start a worker.
        workers: number of workers.
        plain: whether results must be such as plain pickle can serialize.
        most: number of orders after which a worker is replaced; None for no limit.
        retries: how often an order runs again after a worker has died with it.
        name: name of the thread.

    Attributes:
        state: ``RUN``, ``CLOSE`` or ``TERMINATE``.
        broken: why no order can run any more; None while they can.
        prefix: path prefix of the shared segments of orders.

    Raises:
        OSError: no worker can be started.
        SerializationError: the initializer cannot be sent.
    """

    def __init__(
        self,
        recipe: Recipe,
        workers: int,
        *,
        plain: bool,
        most: int | None,
        retries: int,
        name: str,
    ) -> None:
        self.state = RUN
        self.broken: Failure | None = None
        self.prefix = make_prefix()
        self._owner = os.getpid()
        self._workers = workers
        self._books = Books(retries)
        self._inbox: deque[Ticket | Source] = deque()
        self._staff = Staff(recipe, plain=plain, most=most, prefix=self.prefix)
        self._packing = Packing(self.prefix, forks=recipe.starts.method == "fork")
        self._posting = Posting(self._books, self._staff, self._packing)
        self._mean: float | None = None  # time of an order lately, s
        self._futile = 0
        self._looked = time.monotonic()
        self._is_cancelling = self._is_over = False
        # How often it has slept; the present nap, 0 while awake; the last one that was ended.
        self._naps = self._nap = self._woken = 0
        try:
            self._staff.fill(workers)
        except BaseException as error:  # also Ctrl-C: nothing else would end them
            self._staff.end(gently=False)
            if isinstance(error, CannotStart):
                raise OSError(f"no worker can be started: {error}") from error
            raise
        self._cancel_exit = recipe.starts.at_exit(self.terminate)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # From any thread ------------------------------------------------------------------------

    @property
    def members(self) -> list[Attendant]:
        """The present workers."""
        return [*self._staff.members]

    @property
    def is_own(self) -> bool:
        """Whether this process has started the workers, and not one that it was forked from."""
        return os.getpid() == self._owner

    @property
    def size(self) -> int:
        """Number of workers that are wanted."""
        return self._workers

    @property
    def is_busy(self) -> bool:
        """Whether a further order would have to wait for a worker."""
        return len(self._inbox) + self._books.total >= self._workers

    def put(self, item: Ticket | Source) -> None:
        """Take an order, or a source of orders; it fails at once if the service has ended."""
        self._inbox.append(item)
        self._wake()
        if self._is_over:
            self._fail_inbox()

    def rouse(self) -> None:
        """Have the service look at its sources and its state again."""
        self.put(_NOTHING)

    def cancel_waiting(self) -> None:
        """Cancel the orders that were put before and that no worker has been sent."""
        self.put(_CANCEL)

    def close(self) -> None:
        """Take no more orders; end the workers when all are answered."""
        if self.state == RUN:
            self.state = CLOSE
        self.rouse()

    def terminate(self) -> None:
        """End the workers at once, whatever they do; what was not answered fails."""
        if self.is_own:
            self.state = TERMINATE
            self.rouse()
            self.join()

    def join(self) -> None:
        """Wait until all workers have ended; do nothing in a callback of the service."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def grow(self) -> None:
        """Have one more worker from now on."""
        self._workers += 1
        self.rouse()

    def _wake(self) -> None:
        nap = self._nap  # noted afterwards: a signal handler that raises must not leave it asleep
        if nap and nap != self._woken:
            self._staff.watch.wake()
            self._woken = nap

    # The thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        is_done = False
        try:
            while self.state != TERMINATE:
                self._take_in()
                self._refill()
                if self.broken is not None:
                    self._books.take_back(self._staff.take_back())
                    self._fail_all(self.broken)
                self._posting.put_up(self._workers, self._mean)
                self._cancel()
                if self.state == CLOSE and not self._books.total and not self._inbox:
                    is_done = True
                    break
                self._look(self._sleep())
        finally:
            self._finish(gently=is_done)

    def _take_in(self) -> None:
        """Enter what other threads have put into the inbox."""
        while self._inbox:
            item = self._inbox.popleft()
            if item is _CANCEL:
                self._is_cancelling = True
            elif item is not _NOTHING:
                self._books.add(item)

    def _cancel(self) -> None:
        """Cancel what no worker has been sent, if that was asked for."""
        if self._is_cancelling:
            self._is_cancelling = False
            for item in self._books.waiting():
                if isinstance(item, Ticket):
                    item.cancel()

    def _sleep(self) -> list[Attendant]:
        """Wait for an event; return the workers that have sent something, or have ended."""
        staff = self._staff
        timed = LOOK_SECONDS if self._books.out or staff.is_silent else None
        self._naps = self._nap = self._naps + 1
        awake = bool(self._inbox) or self.state == TERMINATE
        found = staff.watch.wait(0.0 if awake else ROOM_SECONDS if staff.board.is_full else timed)
        self._nap = 0
        return found

    # Answers --------------------------------------------------------------------------------

    def _hear(self, attendant: Attendant) -> bool:
        """Take in the answers of a worker; return whether there were any."""
        answers = attendant.answers()
        for answer in answers:
            self._take_answer(*answer)
        return bool(answers)

    def _take_answer(
        self, number: int, packed: bytes | Parcel, seconds: float, cpu_seconds: float
    ) -> None:
        """Settle an order, or have it sent again if a forked worker could not open it."""
        try:
            outcome = opened_outcome(packed)
        except BaseException as error:  # noqa: BLE001 - unpickling a result may raise anything
            outcome = Raised(keep(error, None))
        if not self._books.is_out(number):  # of a worker that was given up
            return
        ticket = self._books.take(number)
        if type(outcome) is Raised:
            if outcome.broken:
                self.broken = outcome.failure
            if outcome.failure.unrun and self._packing.forks and not ticket.by_value:
                ticket.by_value = True  # the worker lacks what its caller has defined since
                self._books.repeat(ticket)
                return
        if seconds:
            before = seconds if self._mean is None else self._mean
            self._mean = before + FRESHNESS * (seconds - before)
        settle(ticket, outcome, seconds, cpu_seconds)

    def _fail_all(self, failure: Failure) -> None:
        """Let all that waits fail."""
        for item in self._books.drop_waiting():
            self._drop(item, failure)

    def _drop(self, item: Ticket | Source, failure: Failure) -> None:
        if isinstance(item, Ticket):
            settle(item, Raised(failure, broken=True))
        else:
            item.drop(failure)

    # Deaths ---------------------------------------------------------------------------------

    def _look(self, speakers: list[Attendant]) -> None:
        """Take in what these workers have sent, and take out those that have ended."""
        now = time.monotonic()
        # What has come in is not kept waiting by a look that the next nap may have, too.
        is_due = now - self._looked > LOOK_SECONDS * (LATE_TIMES if self._inbox else 1)
        if is_due:
            self._looked, speakers = now, self.members
        for attendant in speakers:
            if attendant not in self._staff.members:
                continue
            lost = None
            # Whoever has answered is not asked whether it lives. If it does not, the end that the
            # system reports is still there next time.
            if not self._hear(attendant) or is_due:
                lost = attendant.lost()
                self._hear(attendant)  # asking may have read more
            if lost is not None:
                self._bury(attendant, lost)
            elif attendant.has_left:
                self._staff.let_go(attendant)
        self._staff.close_leaving()

    def _refill(self) -> None:
        """Start workers in the place of those that have ended."""
        if self.broken is not None or (self.state != RUN and not self._books.total):
            return
        try:
            self._staff.fill(self._workers)
        except (CannotStart, SerializationError) as error:
            if not self._staff.members:
                self.broken = keep(OSError(f"no worker can be started: {error}"), None)

    def _bury(self, attendant: Attendant, lost: Lost) -> None:
        """Take a worker out that has died or is stuck; what it had runs again, or is given up."""
        books = self._books
        remains = self._staff.bury(attendant)
        for answer in remains.answers:
            self._take_answer(*answer)
        run, running = remains.orders, 0
        if remains.is_taking:
            # It may have died before it could say what it had taken: what nobody else has.
            books.take_back(self._staff.take_back())
            elsewhere = self._staff.taken()
            for one in self.members:
                self._hear(one)
            books.take_back(list(books.numbers() - elsewhere - set(run)))
        elif run:
            *run, running = run
        # The first of them runs first again, so it is entered last.
        blamed = books.lost(running) if books.is_out(running) else None
        books.run_again([number for number in set(run) - {running} if books.is_out(number)])
        if blamed is not None:
            text = explain_stuck() if lost.stuck else explain_running(lost, blamed.losses)
            error = WorkerLostError(text, exitcode=lost.exitcode)
            settle(blamed, Raised(keep(error, None)))
        self._futile = 0 if lost.ready else self._futile + 1
        if self._futile > MOST_FUTILE:
            self.broken = keep(WorkerLostError(explain_idle(lost), exitcode=lost.exitcode), None)

    # The end --------------------------------------------------------------------------------

    def _finish(self, *, gently: bool) -> None:
        """End all workers, which are idle if ``gently``; what was not answered fails."""
        self.state = TERMINATE
        self._is_over = True  # before the inbox is emptied: what comes later fails in ``put``
        self._staff.end(gently=gently)
        self._books.take_back(list(self._books.numbers()))
        self._fail_all(_gone())
        self._fail_inbox()
        self._cancel_exit()

    def _fail_inbox(self) -> None:
        """Let all fail that has come too late; several threads may do so at the same time."""
        with suppress(IndexError):
            while True:
                item = self._inbox.popleft()
                if item in (_NOTHING, _CANCEL):
                    continue
                if not isinstance(item, Ticket) or item.begin():
                    self._drop(item, _gone())


def _gone() -> Failure:
    text = "the pool was terminated before this task was done"
    return keep(WorkerLostError(text), None)


# What stands in the inbox to wake the service, and to have it cancel what was put before.
_NOTHING: Any = object()
_CANCEL: Any = object()
