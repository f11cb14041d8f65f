"""The books: whatever happens in whatever order, no item is lost, doubled or out of its turn."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amorsize.run.feed import Slice
from amorsize.run.ledger import Ledger

ITEMS = 60

shares = st.floats(0, 1, exclude_max=True)


class Books(RuleBasedStateMachine):
    """Plays claims, replies, deaths, failures, splits, limits and ends against a ledger."""

    @initialize(
        ordered=st.booleans(),
        retries=st.integers(0, 2),
        excepts=st.booleans(),
        start=st.integers(0, 5),
        raises=st.sets(st.integers(0, ITEMS - 1), max_size=3),
        stops=st.none() | st.integers(0, ITEMS - 1),
    )
    def begin(self, ordered, retries, excepts, start, raises, stops):
        """Items before ``start`` ran elsewhere; some raise, one ends the map."""
        self.ledger = Ledger(start, ordered=ordered, retries=retries, return_exceptions=excepts)
        self.start = self.next = start
        self.ordered, self.retries, self.excepts = ordered, retries, excepts
        self.raises, self.stops = raises, stops
        self.given_up = {}  # index: the exception
        self.yielded = {}
        self.order = []
        self.runs = dict.fromkeys(range(ITEMS), 0)

    # What a worker, or the caller, makes of some items.

    def outcome(self, piece):
        """Return (results, failed item) of a slice, run from its first item on."""
        results = []
        for index in range(piece.start, piece.start + piece.size):
            self.runs[index] += 1
            if index == self.stops:
                return results, None
            if index in self.raises:
                error = ValueError(index)
                if not self.excepts:
                    return results, (index, error)
                results.append(error)
            else:
                results.append(index)
        return results, None

    def pick(self, share):
        return sorted(self.ledger.out)[int(share * len(self.ledger.out))]

    # Events.

    @precondition(lambda self: self.next < ITEMS and not self.ledger.is_cut)
    @rule(size=st.integers(1, 9))
    def issue(self, size):
        """The engine takes items from the input and hands them out."""
        size = min(size, ITEMS - self.next)
        chunk = self.ledger.issue(Slice(self.next, size))
        assert self.ledger.out[chunk.number] is chunk
        self.next += size

    @rule(most=st.none() | st.integers(1, 9))
    def reissue(self, most):
        """A chunk that waits is handed out, the first one, or the first items of it."""
        waiting = self.ledger.has_retries
        chunk = self.ledger.reissue(most)
        assert chunk is None or (waiting and self.ledger.out[chunk.number] is chunk)
        assert chunk is None or most is None or chunk.piece.size <= most

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares)
    def put_back(self, share):
        """A chunk that no worker has begun is taken back, and waits."""
        number = self.pick(share)
        size, waiting = self.ledger.out[number].piece.size, self.ledger.waiting
        self.ledger.put_back(number)
        assert number not in self.ledger.out
        assert self.ledger.waiting == waiting + size

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares)
    def reply(self, share):
        """A worker brings back a chunk: all of it, or up to an item that raised or stopped."""
        piece = self.ledger.returned(self.pick(share))
        self.ledger.settle(piece, *self.outcome(piece))

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares)
    def results_that_do_not_open(self, share):
        """A chunk comes back, and its results cannot be loaded."""
        piece = self.ledger.returned(self.pick(share))
        error = TypeError("does not open")
        self.given_up[piece.start] = error
        self.ledger.settle(piece, [], (piece.start, error))

    @precondition(lambda self: self.next < ITEMS and not self.ledger.is_cut)
    @rule(size=st.integers(1, 9))
    def caller_runs(self, size):
        """The caller takes items from the input and runs them itself."""
        piece = Slice(self.next, min(size, ITEMS - self.next))
        results, failed = self.outcome(piece)
        self.ledger.ran(piece.start, results, failed)
        self.next += len(results)
        if failed is not None or len(results) < piece.size:
            self.next = ITEMS  # its input has ended

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares, size=st.integers(1, 9))
    def caller_shares(self, share, size):
        """The caller takes a chunk that no worker has begun, and runs some of it."""
        number = self.pick(share)
        before = self.ledger.out[number].piece.size
        piece = self.ledger.share(number, size)
        assert piece is not None
        assert 0 < piece.size <= size
        left = self.ledger.out[number].piece.size if number in self.ledger.out else 0
        assert left == before - piece.size
        self.ledger.settle(piece, *self.outcome(piece))

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares, inside=st.none() | shares)
    def death(self, share, inside):
        """A worker dies with a chunk, in an item that is known or not; the crew starts anew."""
        number = self.pick(share)
        piece, losses = self.ledger.out[number].piece, self.ledger.out[number].losses
        item = None if inside is None else piece.start + int(inside * piece.size)
        blame = self.ledger.lost(number, item)
        if blame is None:
            assert losses < self.retries or (self.retries and piece.size > 1)
        else:
            assert blame.chunk.losses == self.retries + 1
            error = OSError("a worker died")
            if self.excepts and self.retries and blame.item is not None:
                self.given_up[blame.item] = error
            else:
                lost = [blame.chunk] if self.retries else self.ledger.out.values()
                first = min(chunk.piece.start for chunk in lost)
                self.given_up.setdefault(first, error)
            self.ledger.give_up(blame, error)
        before, out = self.ledger.retried, self.ledger.out.values()
        again = sum(chunk.piece.size for chunk in out)
        self.ledger.retry()
        assert self.ledger.retried == before + again

    @precondition(lambda self: self.ledger.out)
    @rule(share=shares, inside=shares)
    def late_item(self, share, inside):
        """An item takes too long and is given up; what is around it goes on."""
        number = self.pick(share)
        piece = self.ledger.out[number].piece
        item = piece.start + int(inside * piece.size)
        error = self.given_up[item] = TimeoutError(item)
        self.ledger.leave_out(number, item, error)
        self.ledger.recall()

    @rule()
    def new_crew(self):
        """The crew is replaced by one of another size."""
        self.ledger.recall()
        assert not self.ledger.out

    @rule()
    def consume(self):
        """The consumer takes what is ripe."""
        for start, results in self.ledger.ripe():
            assert results
            self.order.append(start)
            for index, value in enumerate(results, start):
                assert index not in self.yielded, "yielded twice"
                self.yielded[index] = value

    # Laws.

    @invariant()
    def pending_is_what_is_between_the_input_and_the_consumer(self):
        assert 0 <= self.ledger.pending <= self.next

    @invariant()
    def ordered_results_are_yielded_without_a_gap(self):
        if self.ordered:
            assert list(self.yielded) == list(range(self.start, self.start + len(self.yielded)))

    @invariant()
    def items_wait_only_where_a_chunk_waits(self):
        assert bool(self.ledger.waiting) == self.ledger.has_retries

    @invariant()
    def chunks_do_not_overlap(self):
        seen = set()
        for chunk in self.ledger.out.values():
            items = set(range(chunk.piece.start, chunk.piece.start + chunk.piece.size))
            assert chunk.piece.size
            assert not items & (seen | self.yielded.keys())
            seen |= items

    def teardown(self):
        """In the end all of it comes out, up to what failed first or ended it."""
        if not hasattr(self, "ledger"):
            return
        while True:
            while self.ledger.reissue():
                pass
            if self.next < ITEMS and not self.ledger.is_cut:
                self.issue(9)
            if not self.ledger.out:
                break
            self.reply(0.0)
        self.consume()
        self.check_the_end()

    def check_the_end(self):
        """Check what was yielded against what is due."""
        assert not self.ledger.out
        assert not self.ledger.has_retries
        assert self.ledger.pending == 0
        assert self.ledger.finished >= len(self.yielded)
        try:
            self.ledger.raise_failure(None)
            failure = None
        except Exception as error:  # noqa: BLE001 - whatever was entered
            failure = error
        end = next(index for index in range(self.start, ITEMS + 1) if index not in self.yielded)
        if self.ordered or not self.ledger.is_cut:  # else later ones may have been yielded before
            assert len(self.yielded) == end - self.start, "lost"
        for index, value in self.yielded.items():
            if index in self.given_up and value is self.given_up[index]:
                continue
            assert value == index or (self.excepts and value.args == (index,))
        if failure is not None:
            assert failure is self.given_up.get(end) or failure.args == (end,)
        elif self.stops is not None and self.start <= self.stops:
            assert end <= self.stops or self.stops in self.given_up
        else:
            assert end == ITEMS
        if not self.retries and not self.given_up:
            assert all(self.runs[index] == 1 for index in self.yielded)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize("retries", [1, 2])
def test_a_chunk_whose_worker_dies_each_time_is_halved_down_to_the_guilty_item(retries):
    ledger = Ledger(0, ordered=True, retries=retries)
    ledger.issue(Slice(0, 16))
    deaths = 0
    while True:
        chunk = next(chunk for chunk in ledger.out.values() if chunk.piece.start <= 11)
        if chunk.piece.start + chunk.piece.size <= 11:
            ledger.settle(ledger.returned(chunk.number), list(range(chunk.piece.size)))
            continue
        deaths += 1
        blame = ledger.lost(chunk.number, None)
        if blame is not None:
            break
        ledger.retry()
        while ledger.reissue():
            pass
    assert (blame.chunk.piece.start, blame.chunk.piece.size, blame.item) == (11, 1, 11)
    assert deaths == retries + 5  # 16, 8, 4, 2, 1


def test_without_retries_a_death_fails_at_the_first_chunk_that_was_out():
    ledger = Ledger(0, ordered=True, retries=0, return_exceptions=True)
    ledger.issue(Slice(0, 4))
    second = ledger.issue(Slice(4, 4))
    blame = ledger.lost(second.number, 5)
    assert blame is not None
    ledger.give_up(blame, OSError("died"))
    assert not ledger.out
    assert list(ledger.ripe()) == []
    with pytest.raises(OSError, match="died"):
        ledger.raise_failure(None)


def test_a_result_before_the_failure_is_yielded_though_a_later_one_came_first():
    ledger = Ledger(0, ordered=True)
    first, second, third = (ledger.issue(Slice(index, 1)) for index in range(3))
    ledger.settle(ledger.returned(third.number), ["third"])
    ledger.settle(ledger.returned(second.number), [], (1, ValueError("second")))
    assert list(ledger.ripe()) == []
    ledger.settle(ledger.returned(first.number), ["first"])
    assert list(ledger.ripe()) == [(0, ["first"])]


def test_the_neighbours_of_an_item_that_kills_are_tried_again():
    """They are not to blame for the death that the item is given up for."""
    ledger = Ledger(0, ordered=True, retries=1, return_exceptions=True)
    chunk = ledger.issue(Slice(0, 2))
    assert ledger.lost(chunk.number, None) is None
    blame = ledger.lost(chunk.number, 0)
    ledger.give_up(blame, OSError("died"))
    (rest,) = ledger.out.values()
    assert (rest.piece.start, rest.losses) == (1, 1)
    assert ledger.lost(rest.number, 1).chunk.losses == 2
