"""The board of a pool: orders of any size reach workers in their order, and none waits for ever."""

import pytest

from amorsize.run.transport import Parcel
from amorsize.serve.board import MOST_BYTES, Board
from amorsize.serve.claims import MOST_TAKEN, Claims
from amorsize.serve.wire import END


@pytest.fixture
def board():
    board = Board()
    yield board
    board.close()


@pytest.fixture
def claims(tmp_path):
    claims = Claims(str(tmp_path / "claims"), create=True)
    yield claims
    claims.close()


def content(number, size):
    return bytes([number % 251]) * size


@pytest.mark.parametrize("size", [0, 1, 244, 245, 246, 10_000, MOST_BYTES - 20])
def test_orders_of_any_size_arrive_in_order(board, claims, size):
    """Also more of them than there is room for at a time."""
    board.end.open(claims)
    for number in range(1, 601):
        board.put(number, content(number, size))
    for number in range(1, 601):
        board.flush()
        _, got, parcel = board.end.take(wait=True)
        assert (got, parcel.head) == (number, content(number, size))
        assert claims.numbers == [number]
        board.end.clear()
        assert not claims.is_taking


def test_small_and_large_orders_mix(board, claims):
    """A record follows its message."""
    board.end.open(claims)
    sizes = [10, 150_000, 10, 180_000, 10, 10, 190_000] * 20
    for number, size in enumerate(sizes, 1):
        board.put(number, content(number, size))
    for number, size in enumerate(sizes, 1):
        board.flush()
        _, got, parcel = board.end.take(wait=True)
        assert (got, len(parcel.head)) == (number, size)
        board.end.clear()
    assert not board.is_full


def test_what_was_taken_is_claimed_until_its_outcomes_are_sent(board, claims):
    """As many orders as a worker may have at a time; the last one last."""
    board.end.open(claims)
    for number in range(1, 2 * MOST_TAKEN + 1):
        board.put(number, b"order")
    board.flush()
    for start in (1, 1 + MOST_TAKEN):
        for number in range(start, start + MOST_TAKEN):
            board.end.take(wait=True)
            assert claims.numbers == [*range(start, number + 1)]
        board.end.clear()
        assert claims.numbers == []
    assert board.end.take(wait=False) is None


def test_orders_that_nobody_has_taken_can_be_taken_back(board, claims):
    """Wherever they are: in the pipe, in the socket, or waiting for room."""
    board.end.open(claims)
    for number in range(1, 1_001):
        board.put(number, content(number, 5 if number % 3 else 50_000))
    board.put_end()
    board.flush()
    taken = [board.end.take(wait=True)[1] for _ in range(5)]
    assert taken == [1, 2, 3, 4, 5]
    assert sorted(board.take_back(lambda: None)) == list(range(6, 1_001))
    board.put(2_000, b"next")
    board.put_end()
    board.flush()
    assert board.end.take(wait=True)[1:] == (2_000, Parcel(b"next"))
    assert board.end.take(wait=True)[0] == END


def test_an_order_that_is_too_large_is_refused(board):
    """Where there is no shared memory for it."""
    with pytest.raises(OSError, match="too large"):
        board.put(1, bytes(MOST_BYTES))
