"""The service of a pool: a thread that sends orders to workers, takes answers in, and replaces
workers that have ended.

Only that thread touches the books and the workers' channels. Other threads put what they want into
an inbox and wake it. What an outcome is for (a result, a future) is the business of its ticket.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Pipe, wait
from types import FunctionType

from ..errors import SerializationError, WorkerLostError
from ..run.crew import CannotStart
from ..run.failure import Failure, keep
from ..run.known import main_names
from ..run.losses import explain_idle, explain_running, explain_stuck
from ..run.processes import GRACE_SECONDS
from ..run.shared import make_prefix, sweep
from ..run.transport import pack_forked, pack_shipped
from .attendant import LATE_SECONDS, Attendant
from .attending import opened_outcome
from .books import Books, Source, Ticket, ahead
from .orders import Raised, Sendable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..run.crew import Lost
    from ..run.start import Recipe
    from ..run.transport import Parcel
    from .orders import Order

__all__ = ["CLOSE", "RUN", "TERMINATE", "Service"]

# While workers have orders, they are looked at this often: one may be stuck, or its death unseen.
LOOK_SECONDS = 0.1
# The pool gives up after more than this many workers in a row that ended before they were ready.
MOST_FUTILE = 3
# Orders that take about so long together go in one message, and at most so many.
TOGETHER_SECONDS = 0.0005
MOST_TOGETHER = 32
# How much the time of the last order counts in the mean.
FRESHNESS = 0.2

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
        CannotStart: no worker can be started.
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
        self._forks = recipe.starts.method == "fork"
        # The functions and classes of the main module that forked workers have under their names.
        self._main = {
            name: value
            for name, value in (main_names() if self._forks else {}).items()
            if isinstance(value, (FunctionType, type))
        }
        self._met: tuple[Any, bool] = (None, False)  # the last function, and whether it is new
        self._recipe = recipe
        self._workers = workers
        self._plain = plain
        self._most = most
        self._books = Books(retries)
        self._inbox: deque[Ticket | Source] = deque()
        self._members: dict[Attendant, int] = {}  # how many orders each was sent
        self._leaving: dict[Attendant, float] = {}  # and when each is killed, on the monotonic clock
        self._mean: float | None = None  # time of an order lately, s
        self._futile = 0
        self._looked = time.monotonic()
        self._asleep = self._is_cancelling = False
        self._watch = _Watch()
        try:
            self._refill()
        except BaseException:
            self._end_all()
            raise
        self._cancel_exit = recipe.starts.at_exit(self.terminate)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # From any thread ------------------------------------------------------------------------

    @property
    def members(self) -> list[Attendant]:
        """The present workers."""
        return list(self._members)

    @property
    def is_own(self) -> bool:
        """Whether this process has started the workers, and not one that it was forked from."""
        return os.getpid() == self._owner

    @property
    def is_over(self) -> bool:
        """Whether all workers have ended."""
        return not self._thread.is_alive()

    @property
    def size(self) -> int:
        """Number of workers that are wanted."""
        return self._workers

    @property
    def is_busy(self) -> bool:
        """Whether a further order would have to wait for a worker."""
        return len(self._inbox) + self._books.total >= self._workers

    def put(self, item: Ticket | Source) -> None:
        """Take an order, or a source of orders."""
        self._inbox.append(item)
        self._wake()

    def rouse(self) -> None:
        """Have the service look at its sources and its state again."""
        self._inbox.append(_NOTHING)
        self._wake()

    def cancel_waiting(self) -> None:
        """Cancel the orders that no worker has been sent."""
        self._is_cancelling = True
        self.rouse()

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

    def grow(self, workers: int) -> None:
        """Have at least this many workers from now on."""
        if workers > self._workers:
            self._workers = workers
            self.rouse()

    def _wake(self) -> None:
        if self._asleep:
            self._asleep = False
            self._watch.wake()

    # The thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self.state != TERMINATE:
                self._take_in()
                self._staff()
                self._hand_out()
                self._cancel()
                self._share()
                if self.state == CLOSE and self._books.is_idle and not self._inbox:
                    break
                self._look(self._sleep())
        finally:
            self._finish()

    def _take_in(self) -> None:
        """Enter what other threads have put into the inbox."""
        while self._inbox:
            item = self._inbox.popleft()
            if item is not _NOTHING:
                self._books.add(item)

    def _hand_out(self) -> None:
        """Send orders to workers that have room."""
        books = self._books
        if self.broken is not None:
            self._fail_all(self.broken)
        most = 1 if self._most is not None else ahead(self._mean)
        while books.has_waiting:
            attendant = books.freest(most)
            if attendant is None or (books.count(attendant) and not attendant.recalls):
                break
            tickets = books.draw_batch(self._batch_size(attendant))
            if not tickets:
                break
            self._send(tickets, attendant)
        self._met = None, False  # keeps no function alive

    def _cancel(self) -> None:
        """Cancel what no worker has been sent, if that was asked for."""
        if self._is_cancelling:
            self._is_cancelling = False
            for item in self._books.waiting():
                if isinstance(item, Ticket):
                    item.cancel()

    def _batch_size(self, attendant: Attendant) -> int:
        """Return how many orders may go to a worker in one message.

        Only short ones do, and only while there is work for all workers.
        """
        mean = self._mean
        if mean is None or attendant.claims is None or self._most is not None:
            return 1
        share = self._books.backlog // (2 * self._workers)
        return max(1, min(MOST_TOGETHER, share, int(TOGETHER_SECONDS / max(mean, 1e-9))))

    def _share(self) -> None:
        """Give what a busy worker has not begun to one that is idle."""
        books = self._books
        idle = [one for one in self._members if one.is_ready and not books.count(one)]
        for attendant in idle if self._most is None else ():
            rich = max(self._members, key=self._spare)
            numbers = rich.withdraw() if self._spare(rich) > 0 else []
            if not numbers:
                return
            self._send(self._taken(rich, numbers), attendant)

    def _taken(self, attendant: Attendant, numbers: list[int]) -> list[Ticket]:
        """Return the orders of these numbers that a worker still has, and take them away."""
        found = (self._books.take(attendant, number) for number in numbers)
        return [ticket for ticket in found if ticket is not None]

    def _spare(self, attendant: Attendant) -> int:
        """Return how many orders a worker can spare: all, until it is ready to run one."""
        return self._books.count(attendant) - attendant.is_ready

    def _send(self, tickets: list[Ticket], attendant: Attendant) -> None:
        """Send orders in one message; of one that cannot be sent, the reason is the outcome."""
        books = self._books
        idle = not books.count(attendant)
        numbers = [books.hold(attendant, ticket) for ticket in tickets]
        try:
            pack = self._packer(tickets)
            orders = [(number, _ready(one.order, pack)) for number, one in zip(numbers, tickets)]
            attendant.send(numbers, pack(orders, self.prefix), idle=idle)
        except BaseException as error:  # noqa: BLE001 - a reduction may also call sys.exit()
            self._taken(attendant, numbers)
            if len(tickets) == 1:
                self._settle(tickets[0], Raised(keep(error, None)._replace(unrun=True)))
                return
            for ticket in tickets:
                self._send([ticket], attendant)
            return
        self._members[attendant] += 1
        if self._members[attendant] == self._most:
            books.seal(attendant)

    def _packer(self, tickets: list[Ticket]) -> Callable[..., Parcel]:
        """Return what packs orders: what a forked worker has goes by its name."""
        if not self._forks or any(one.by_value or self._is_new(one.order) for one in tickets):
            return pack_shipped
        return pack_forked

    def _is_new(self, order: Order) -> bool:
        """Return whether the function is one of the main module's that forked workers lack."""
        func: Any = order.func
        if isinstance(func, Sendable):
            func = func.func
        if func is self._met[0]:
            return self._met[1]
        self._met = func, self._was_made_later(func)
        return self._met[1]

    def _was_made_later(self, func: Any) -> bool:
        if getattr(func, "__module__", None) != "__main__":
            return False
        name = getattr(func, "__qualname__", "").partition(".")[0]
        return self._main.get(name) is not main_names().get(name)

    def _sleep(self) -> list[Attendant]:
        """Wait for an event; return the workers that have sent something, or have ended."""
        silent = self._leaving or any(not one.process.reports for one in self._members)
        timed = silent or any(self._books.count(one) for one in self._members)
        self._asleep = True
        awake = bool(self._inbox) or self.state == TERMINATE
        found = self._watch.wait(0.0 if awake else self._patience if timed else None)
        self._asleep = False
        return found

    @property
    def _patience(self) -> float:
        """How long not to look at workers that send nothing, s."""
        return LATE_SECONDS if any(one.has_batches for one in self._members) else LOOK_SECONDS

    # Answers --------------------------------------------------------------------------------

    def _hear(self, attendant: Attendant) -> None:
        """Take in the answers of a worker."""
        last = 0
        for last, answer in attendant.answers():
            if len(answer) > 1:
                self._take_answer(attendant, last, *answer)
            else:
                for ticket in self._taken(attendant, attendant.given_back(last, *answer)):
                    self._books.repeat(ticket)
        if last:
            attendant.heard(last)

    def _take_answer(
        self,
        attendant: Attendant,
        number: int,
        packed: bytes | Parcel,
        seconds: float,
        cpu_seconds: float,
    ) -> None:
        """Settle an order, or send it again if the worker could not open its message."""
        try:
            outcome = opened_outcome(packed)
        except Exception as error:  # noqa: BLE001 - unpickling a result may raise anything
            outcome = Raised(keep(error, None))
        if type(outcome) is Raised and self._runs_again(attendant, number, outcome):
            return
        ticket = self._books.take(attendant, number)
        assert ticket is not None
        if seconds:
            before = seconds if self._mean is None else self._mean
            self._mean = before + FRESHNESS * (seconds - before)
        self._settle(ticket, outcome, seconds, cpu_seconds)

    def _runs_again(self, attendant: Attendant, number: int, outcome: Raised) -> bool:
        """Have orders that a worker could not open sent again, if another way is left."""
        if outcome.broken:
            self.broken = outcome.failure
        if not outcome.failure.unrun:
            return False
        together = attendant.batch_of(number)
        for one in together:
            ticket = self._books.held(attendant, one)
            if len(together) == 1:
                if ticket.by_value or not self._forks:
                    return False
                ticket.by_value = True  # a forked worker lacks what its caller has defined since
            ticket.alone = True
        for ticket in self._taken(attendant, together):
            self._books.repeat(ticket)
        return True

    def _settle(
        self, ticket: Ticket, outcome: Any, seconds: float = 0.0, cpu_seconds: float = 0.0
    ) -> None:
        try:
            ticket.settle(outcome, seconds, cpu_seconds)
        except Exception:  # noqa: BLE001 - a callback of the user's
            threading.excepthook(threading.ExceptHookArgs([*sys.exc_info(), self._thread]))

    def _fail_all(self, failure: Failure) -> None:
        """Let all that waits fail."""
        for item in self._books.drop_waiting():
            if isinstance(item, Ticket):
                self._settle(item, Raised(failure, broken=True))
            else:
                item.drop(failure)

    # Deaths ---------------------------------------------------------------------------------

    def _look(self, speakers: list[Attendant]) -> None:
        """Take in what workers have sent, and take out workers that have ended.

        Args:
            speakers: those that have sent something, or have ended.
        """
        now = time.monotonic()
        if now - self._looked > self._patience:
            self._looked, speakers = now, self.members
        for attendant in speakers:
            if attendant not in self._members:
                continue
            lost = attendant.lost()
            self._hear(attendant)
            for ticket in self._taken(attendant, attendant.take_away()):
                self._books.repeat(ticket)
            if lost is not None:
                self._bury(attendant, lost)
            elif attendant.has_left:
                self._let_go(attendant)
        for attendant, limit in list(self._leaving.items()):
            if not attendant.process.is_alive() or now > limit:
                self._watch.remove(attendant)
                del self._leaving[attendant]
                attendant.abandon()
                attendant.sweep()

    def _staff(self) -> None:
        """Start workers in the place of those that have ended."""
        if self.broken is None and (self.state == RUN or not self._books.is_idle):
            try:
                self._refill()
            except (CannotStart, SerializationError) as error:
                if not self._members:
                    self.broken = keep(error, None)

    def _refill(self) -> None:
        """Start workers until there are as many as wanted."""
        while len(self._members) < self._workers:
            attendant = Attendant(
                self._recipe, plain=self._plain, most=self._most, prefix=self.prefix
            )
            self._books.enter(attendant)
            self._members[attendant] = 0
            self._watch.add(attendant)

    def _let_go(self, attendant: Attendant) -> None:
        """Take a worker out that ends as it was asked to."""
        del self._members[attendant]
        self._books.leave(attendant, unbegun=set())
        self._leaving[attendant] = time.monotonic() + GRACE_SECONDS

    def _bury(self, attendant: Attendant, lost: Lost) -> None:
        """Take a worker out that has died or is stuck; what it had runs again, or is given up."""
        unbegun: set[int] = set()
        while numbers := attendant.withdraw():
            unbegun.update(numbers)
        self._watch.remove(attendant)
        for number, answer in attendant.abandon():
            if len(answer) > 1:
                self._take_answer(attendant, number, *answer)
        attendant.sweep()
        del self._members[attendant]
        blamed = self._books.leave(attendant, unbegun=unbegun)
        if blamed is not None:
            text = explain_stuck() if lost.stuck else explain_running(lost, blamed.losses)
            error = WorkerLostError(text, exitcode=lost.exitcode)
            self._settle(blamed, Raised(keep(error, None)))
        self._futile = 0 if lost.ready else self._futile + 1
        if self._futile > MOST_FUTILE:
            self.broken = keep(WorkerLostError(explain_idle(lost), exitcode=lost.exitcode), None)

    # The end --------------------------------------------------------------------------------

    def _finish(self) -> None:
        """End all workers; what was not answered fails."""
        self._take_in()
        gone = WorkerLostError("the pool was terminated before this task was done")
        if self.state == CLOSE:
            for attendant in self._members:
                attendant.dismiss()
            for attendant in self._members:
                attendant.close()
        for attendant in self.members:
            attendant.abandon()
            self._books.leave(attendant, unbegun=self._books.numbers(attendant))
        self._fail_all(keep(gone, None))
        self._end_all()
        self._cancel_exit()

    def _end_all(self) -> None:
        for attendant in (*self._members, *self._leaving):
            attendant.abandon()
            attendant.sweep()
        self._members.clear()
        self._watch.close()
        sweep(self.prefix)


class _Watch:
    """Waits for several workers at once, and for being woken."""

    def __init__(self) -> None:
        self._wakeup, self._waker = Pipe(duplex=False)
        self._sources: dict[Attendant, list[Any]] = {}
        self._selector = None
        if os.name == "posix":
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    def wake(self) -> None:
        """Have ``wait`` return."""
        self._waker.send_bytes(b"w")

    def add(self, attendant: Attendant) -> None:
        """Wait for a worker, too."""
        self._sources[attendant] = attendant.sources()
        if self._selector is not None:
            for source in self._sources[attendant]:
                self._selector.register(source, selectors.EVENT_READ, attendant)

    def remove(self, attendant: Attendant) -> None:
        """Wait no longer for a worker; call it before its descriptors are closed."""
        for source in self._sources.pop(attendant):
            if self._selector is not None:
                self._selector.unregister(source)

    def wait(self, timeout: float | None) -> list[Attendant]:
        """Return the workers that have sent something or have ended.

        Args:
            timeout: longest time to wait, s; None for no limit.
        """
        if self._selector is not None:
            found = [key.data for key, _ in self._selector.select(timeout)]
        else:
            owners = {source: one for one, sources in self._sources.items() for source in sources}
            found = [owners.get(one) for one in wait([self._wakeup, *owners], timeout)]
        if None in found:
            self._wakeup.recv_bytes()
        return [one for one in found if one is not None]

    def close(self) -> None:
        """Release all descriptors."""
        if self._selector is not None:
            self._selector.close()
        self._wakeup.close()
        self._waker.close()


def _ready(order: Order, pack: Callable[..., Parcel]) -> Order:
    """Return an order that can be sent: the function of a job is packed once."""
    if isinstance(order.func, Sendable):
        return order._replace(func=order.func.packed(pack))
    return order


_NOTHING: Any = object()  # stands in the inbox to wake the service
