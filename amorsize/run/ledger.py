"""The ledger of a run: where each item is, what failed first, and where the results end.

A ledger has no clock, no workers and no I/O. The engine reports each event to it, with one method
for each kind, and acts on the answer. Every item is in exactly one place: not issued yet, in a
chunk that is out, in a chunk that waits to be handed out again, finished, or yielded. Or it no
longer counts, because an earlier item failed or the results end before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from ..tuples import NamedTuple
from .chunks import Chunk, around, halves
from .feed import Slice
from .results import Results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Blame", "Failed", "Ledger"]

Failed = tuple[int, BaseException]  # index of an item, and what it raised


class Blame(NamedTuple):
    """A chunk whose retries are used up.

    Attributes:
        chunk: the chunk.
        item: index of the item that ended the worker; None if it is unknown which item did.
    """

    chunk: Chunk
    item: int | None


class Ledger:
    """The state of all items of one run.

    Args:
        start: index of the first item.
        ordered: whether results are yielded in the order of the items.
        retries: how often the items of a lost worker run again.
        return_exceptions: whether an exception is a result.
        watched: whether somebody wants to know of results as they come.

    Attributes:
        fresh: (index of the first item, results) that came since ``take_fresh``, if watched.
        out: the chunks that workers have, by number.
        pending: number of items that are issued or finished, but not yielded.
        finished: number of items that have a result.
        retried: number of items that had to run again after a worker was lost.
        waiting: number of items in chunks that wait to be handed out again.
        forgotten: number of chunks that were out when an earlier item failed or ended the results.
    """

    def __init__(
        self,
        start: int,
        *,
        ordered: bool,
        retries: int = 1,
        return_exceptions: bool = False,
        watched: bool = False,
    ) -> None:
        self.fresh: list[tuple[int, list[Any]]] = []
        self._watched = watched
        self.out: dict[int, Chunk] = {}
        self.pending = 0
        self.finished = 0
        self.retried = 0
        self.waiting = 0
        self.forgotten = 0
        self._retries = retries
        self._return_exceptions = return_exceptions
        self._again: list[tuple[int, int, Chunk]] = []  # a heap, by index of the first item
        self._results = Results(start, ordered=ordered)
        self._number = 0

    # Queries --------------------------------------------------------------------------------

    @property
    def has_retries(self) -> bool:
        """Whether any chunk waits to be handed out again."""
        return bool(self._again)

    @property
    def has_suspects(self) -> bool:
        """Whether any chunk has ended a worker, and must not run in the caller."""
        again = (chunk for _, _, chunk in self._again)
        return any(chunk.losses for chunk in self.out.values()) or any(c.losses for c in again)

    @property
    def has_failed(self) -> bool:
        """Whether any item has failed."""
        return self._results.failure is not None

    @property
    def is_cut(self) -> bool:
        """Whether items from some index on no longer count."""
        return self._results.is_cut

    @property
    def has_end(self) -> bool:
        """Whether ``func`` has ended the results, by StopIteration."""
        return self._results.end is not None

    @property
    def unread(self) -> int:
        """Number of blocks of results that are not yielded yet."""
        return len(self._results)

    def raise_failure(self, later: Exception | None) -> None:
        """Raise the first failure, if there is any.

        Args:
            later: what the input raised after its last item; None for nothing.
        """
        self._results.raise_failure(later)

    # Handing out ----------------------------------------------------------------------------

    def issue(self, piece: Slice) -> Chunk:
        """Enter items taken from the input as a chunk that is out."""
        self.pending += piece.size
        return self._enter(piece)

    def reissue(self, most: int | None = None) -> Chunk | None:
        """Return the first chunk that waits, entered as out; None if there is none.

        Args:
            most: most items of the chunk; the others go on waiting. None for all of it.
        """
        while self._again:
            chunk = heappop(self._again)[2]
            size = chunk.piece.size
            self.waiting -= size
            if not self._results.counts(chunk.piece.start):
                self.pending -= size
                continue
            if most is not None and most < size:
                piece, rest = halves(chunk.piece, chunk.piece.start + most)
                self._wait(Chunk(chunk.number, rest, chunk.losses))
                return self._enter(piece, chunk.losses)
            self.out[chunk.number] = chunk
            return chunk
        return None

    def put_back(self, number: int) -> None:
        """Make a chunk that no worker has begun wait, to be handed out again."""
        chunk = self.out.pop(number, None)
        if chunk is not None:
            self._wait(chunk)

    def recall(self) -> None:
        """Make all chunks that are out run again, because no worker has them any more."""
        for chunk in self.out.values():
            self._wait(chunk)
        self.out = {}

    def retry(self) -> None:
        """Like ``recall``, after a worker was lost; count the items as retried."""
        self.retried += sum(chunk.piece.size for chunk in self.out.values())
        self.recall()

    def share(self, number: int, size: int) -> Slice | None:
        """Take the first items off a chunk that no worker has begun; the others stay in it.

        Args:
            number: the chunk's number.
            size: most items to take.

        Returns:
            The items, to be settled once they have run; None if the chunk has ended, or no longer
            counts.
        """
        chunk = self.out.pop(number, None)
        if chunk is None:
            return None
        piece, rest = halves(chunk.piece, chunk.piece.start + min(size, chunk.piece.size))
        if rest.size:
            self.out[number] = Chunk(number, rest, chunk.losses)
        return piece

    # Coming back ----------------------------------------------------------------------------

    def returned(self, number: int) -> Slice:
        """Remove a chunk that is out and has run; return its items, to be settled."""
        return self.out.pop(number).piece

    def settle(self, piece: Slice, results: list[Any], failed: Failed | None = None) -> None:
        """Record the outcome of items that are no longer in a chunk.

        Args:
            piece: the items.
            results: the results of the first items. If some are missing and no item failed,
                ``func`` raised StopIteration, and the results end there.
            failed: the item that failed, if one did.
        """
        self.pending -= piece.size - len(results)
        self.finished += len(results)
        if results:
            self._results.settle(piece.start, results)
            if self._watched:
                self.fresh.append((piece.start, results))
        if failed is not None:
            self._fail(*failed)
        elif len(results) < piece.size and self._results.cut(piece.start + len(results)):
            self._forget_later()

    def take_fresh(self) -> list[tuple[int, list[Any]]]:
        """Return what ``fresh`` holds, and empty it."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def ran(self, start: int, results: list[Any], failed: Failed | None = None) -> None:
        """Record the outcome of items that were never issued, because the caller ran them."""
        self.pending += len(results)
        self.settle(Slice(start, len(results)), results, failed)

    def ripe(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield (index of the first item, results) of all results that are due now."""
        for start, results, came in self._results.ripe():
            self.pending -= came
            if results:
                yield start, results

    # Losses ---------------------------------------------------------------------------------

    def lost(self, number: int, item: int | None) -> Blame | None:
        """Record the loss of the worker that had a chunk.

        If no retry is left and the guilty item is unknown, the two halves of the chunk run
        separately, to find it.

        Args:
            number: number of the chunk, which is out.
            item: index of the item that ran; None if unknown.

        Returns:
            What to give up; None if the items run again.
        """
        chunk = self.out[number]
        piece, losses = chunk.piece, chunk.losses + 1
        self.out[number] = chunk = Chunk(number, piece, losses)
        if losses <= self._retries:
            return None
        if piece.size == 1:
            item = piece.start
        if item is not None or not self._retries:
            return Blame(chunk, item)
        del self.out[number]
        for half in halves(piece, piece.start + piece.size // 2):
            self._enter(half, losses - 1)
        return None

    def split(self, number: int, parts: int) -> None:
        """Have a chunk that was lost run again in parts, so that the guilty item is found sooner.

        Args:
            number: number of the chunk, which is out.
            parts: most parts.
        """
        chunk = self.out.pop(number)
        rest, each = chunk.piece, -(-chunk.piece.size // parts)
        while rest.size:
            part, rest = halves(rest, rest.start + min(each, rest.size))
            self._number += 1
            self._wait(Chunk(self._number, part, chunk.losses))

    def give_up(self, blame: Blame, error: BaseException) -> None:
        """Give up a chunk, or only its guilty item if exceptions are results.

        The results of the items before the guilty one are lost, too, so no item of the chunk
        counts. Without retries no item of any chunk that is out counts: all these chunks may have
        begun, and must not run twice.

        Args:
            blame: what ``lost`` returned.
            error: the item's result, or the exception to raise.
        """
        if self._return_exceptions and blame.item is not None and self._retries:
            self.leave_out(blame.chunk.number, blame.item, error)
            return
        lost = [blame.chunk] if self._retries else self.out.values()
        self._fail(min(chunk.piece.start for chunk in lost), error)

    def leave_out(self, number: int, index: int, error: BaseException) -> None:
        """Give up one item of a chunk, and replace the chunk by the parts before and after it.

        Args:
            number: number of the chunk, which is out.
            index: index of the item.
            error: the item's result, or the exception to raise.
        """
        chunk = self.out.pop(number)
        losses = min(chunk.losses, self._retries)  # the item was to blame for the last one
        for piece in around(chunk.piece, index):
            if piece.size:
                self._enter(piece, losses)
        if self._return_exceptions:
            self.settle(Slice(index, 1), [error])
        else:
            self.settle(Slice(index, 1), [], (index, error))

    # Inside ---------------------------------------------------------------------------------

    def _enter(self, piece: Slice, losses: int = 0) -> Chunk:
        self._number += 1
        chunk = self.out[self._number] = Chunk(self._number, piece, losses)
        return chunk

    def _wait(self, chunk: Chunk) -> None:
        self.waiting += chunk.piece.size
        heappush(self._again, (chunk.piece.start, chunk.number, chunk))

    def _fail(self, index: int, error: BaseException) -> None:
        """Record a failure. Items after the earliest failure no longer count."""
        if self._results.fail(index, error):
            self._forget_later()

    def _forget_later(self) -> None:
        """Forget the chunks that no longer count; their workers end with the crew."""
        for number, chunk in list(self.out.items()):
            if not self._results.counts(chunk.piece.start):
                del self.out[number]
                self.forgotten += 1
                self.pending -= chunk.piece.size
