"""Taking in the replies of workers: results into the ledger, times into the course."""

from __future__ import annotations

from ..errors import SerializationError
from ..signals import held_signals
from .course import Course
from .failure import Failure, add_item_note, add_note, unpack
from .feed import Feed, Slice
from .ledger import Failed, Ledger
from .losses import loss_error, worded
from .monitor import Trial
from .policy import Policy
from .reply import Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .crew import Lost

__all__ = ["Intake"]

# A chunk that was lost on another engine runs again in so many parts: the engine may have tried it
# several times already, and tells no item.
LOST_PARTS = 16
# The same for a chunk with an item that its worker could not open; none of its items has run.
UNOPENED_PARTS = 8


class Intake:
    """Takes in replies.

    Args:
        feed: the items.
        policy: how to run them.
        ledger: where each item is.
        course: records what the chunks take.
        trial: whether the number of workers is settled.

    Attributes:
        withdrawn: why the calling process is to take over for good, "" while it is not.
        unbegun: the chunks that are out, and that no worker will begin.
        futile: crews lost since the last finished chunk.
    """

    def __init__(
        self, feed: Feed, policy: Policy, ledger: Ledger, course: Course, trial: Trial
    ) -> None:
        self.withdrawn = ""
        self.unbegun: set[int] = set()
        self.futile = 0
        self._feed = feed
        self._policy = policy
        self._ledger = ledger
        self._course = course
        self._trial = trial

    def take_in(self, number: int, reply: Reply) -> None:
        """Record the reply of a worker."""
        if number not in self._ledger.out:  # the chunk no longer counts
            return
        if reply.failure is not None and reply.failure.unrun and self._policy.withdraw:
            self.withdrawn = self.withdrawn or worded(unpack(reply.failure))
            self.unbegun.add(number)
            return
        if reply.lost is not None:
            self._lost(number, reply.lost)
            return
        if self._is_unopened(number, reply.failure):
            self._ledger.split(number, UNOPENED_PARTS)
            return
        self.futile = 0
        if reply.gives_back:
            piece = self._ledger.share(number, reply.done)
            assert piece is not None
            self._ledger.put_back(number)
        else:
            piece = self._ledger.returned(number)
        results, failed = self._opened(piece, reply)
        if results:
            self._trial.note(self._course.came(piece.start, reply))
        if failed is None and reply.failure is not None:
            failed = self._failed(piece, reply.failure)
        self._ledger.settle(piece, results, failed)

    def _is_unopened(self, number: int, failure: Failure | None) -> bool:
        """Return whether a worker could not open some item of a chunk of several."""
        if failure is None or not failure.unrun or failure.item is None:
            return False
        # What the caller could not send is an exception of its own, which names its item.
        is_workers = not isinstance(failure.carried, BaseException)
        return is_workers and self._ledger.out[number].piece.size > 1

    def _lost(self, number: int, lost: Lost) -> None:
        """Have a chunk that was lost with its worker run again, or give it up."""
        ledger, before = self._ledger, set(self._ledger.out)
        chunk = ledger.out[number]
        ledger.retried += chunk.piece.size
        blame = ledger.lost(number, None)
        if blame is not None:
            error = loss_error(lost, chunk.piece, blame.chunk.losses, blame.item, self._feed)
            ledger.give_up(blame, error)
            return
        if number in ledger.out:
            ledger.split(number, LOST_PARTS)
        for half in ledger.out.keys() - before:
            ledger.put_back(half)

    def _failed(self, piece: Slice, failure: Failure) -> Failed:
        """Return the index of the item that a worker's failure belongs to, and the exception."""
        error, index = unpack(failure), failure.item
        if index is not None:
            shown, item = self._feed.name(index, piece)
            if type(error) is SerializationError and error.index == index:
                error.index = shown
            add_item_note(error, shown, item)
            return index, error
        if isinstance(error, SerializationError):
            # The first item stands for the chunk: none was run.
            error.index, _ = self._feed.name(piece.start, piece)
        add_note(error, "raised while a worker was set up (initializer, function)")
        return piece.start, error

    def _opened(self, piece: Slice, reply: Reply) -> tuple[list[object], Failed | None]:
        """Return the results of a reply, and the failure if they cannot be loaded."""
        if not reply.done:
            return [], None
        with held_signals():  # around the try: a handler's exception is no failed load
            try:
                return reply.open(), None
            except Exception as error:  # noqa: BLE001 - a user's __setstate__ may raise anything
                first, _ = self._feed.name(piece.start, piece)
                last, _ = self._feed.name(piece.start + reply.done - 1, piece)
                add_note(error, f"raised while the results of items {first} to {last} were loaded")
                return [], (piece.start, error)
