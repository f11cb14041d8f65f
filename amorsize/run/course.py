"""The course of a run: what each chunk took, and what the next items are expected to take."""

from __future__ import annotations

from ..decide.figures import Profile
from ..measure.timing import CLAIMED, UNKNOWN, Block, Tally
from .chunks import Span
from .reply import Reply

__all__ = ["Course"]

# Most chunks in a timeline. Nobody reads a longer one, and an endless run must not keep all chunks.
MOST_SPANS = 10_000
# Weight that earlier chunks keep in the expected times after one more chunk.
KEPT = 0.7


class Course:
    """What the chunks of a run took.

    Args:
        item_seconds: expected time of an item, 0 when unknown.
        result_bytes: expected size of a result, 0 when unknown.
        cpu_share: CPU time of an item over its wall time, 0 when unknown.

    Attributes:
        spans: the timeline: the first ``MOST_SPANS`` chunks.
        tally: times of all items that ran in workers.
        own: times of all items that ran in the calling process.
        chunks: number of chunks that came back.
        item_seconds: expected time of the next items.
        cpu_share: the expected value, as given; the chunks do not change it.
        pack_seconds: expected time to pickle a result.
        packed: time that pickling all results took, s.
        result_bytes, arg_bytes: size of a result and of an item as sent, the largest so far.
    """

    def __init__(self, item_seconds: float, result_bytes: float, cpu_share: float) -> None:
        self.spans: list[Span] = []
        self.tally = Tally()
        self.own = Tally()
        self.chunks = 0
        self.item_seconds = item_seconds
        self.cpu_share = cpu_share
        self.pack_seconds = 0.0
        self.packed = 0.0
        self.result_bytes = result_bytes
        self.arg_bytes = 0.0
        self._recent = (0.0, 0.0)  # (items, seconds), with less weight for earlier ones

    @classmethod
    def expecting(cls, profile: Profile | None) -> Course:
        """Return the course of a run with the expectations of a profile; with none for None."""
        if profile is None:
            return cls(0.0, 0.0, 0.0)
        return cls(profile.item_seconds, profile.result_bytes, profile.cpu_share)

    def sent(self, size: int, items: int) -> None:
        """Record the size of the items of a chunk, as sent."""
        self.arg_bytes = max(self.arg_bytes, size / items)

    def came(self, start: int, reply: Reply) -> Block:
        """Record a chunk that a worker has run, whose first item is ``start``."""
        self.result_bytes = max(self.result_bytes, reply.size / reply.done)
        self.packed += reply.pack_seconds
        self.pack_seconds += (1 - KEPT) * (reply.pack_seconds / reply.done - self.pack_seconds)
        self.chunks += 1
        times = (reply.begun, reply.seconds, reply.cpu_seconds)
        return self._note(Span(reply.pid, start, reply.done, *times, reply.size))

    def ran(self, start: int, begun: float, block: Block) -> None:
        """Record items that ran in the calling process, from ``start`` on and since ``begun``."""
        self._note(Span(0, start, block.items, begun, block.seconds, block.cpu_seconds))

    def _note(self, span: Span) -> Block:
        """Record the time of some items, wherever they ran; return it as a block."""
        if len(self.spans) < MOST_SPANS:
            self.spans.append(span)
        # Waiting is never proved: a block in the caller may have waited for workers that start.
        proof = CLAIMED if span.worker else UNKNOWN
        block = Block(span.items, span.seconds, span.cpu_seconds, proof)
        (self.tally if span.worker else self.own).add(block)
        items, seconds = self._recent
        self._recent = (KEPT * items + span.items, KEPT * seconds + span.seconds)
        self.item_seconds = self._recent[1] / self._recent[0]
        return block
