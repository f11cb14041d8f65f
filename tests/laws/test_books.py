"""The books of a pool: every order is settled once, and in the end none is left."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from amorsize.serve.books import Books, Ticket

RETRIES = 1


class Noted(Ticket):
    """An order that knows how often it began, and whether it is wanted."""

    __slots__ = ("begun", "is_wanted", "name")

    def __init__(self, name):
        super().__init__((abs, (name,), {}))
        self.name = name
        self.begun = 0
        self.is_wanted = True

    def begin(self):
        self.begun += 1
        return self.is_wanted


class Several:
    """A source of some orders, with pauses."""

    def __init__(self, orders):
        self.orders = orders
        self.pauses = len(orders)

    @property
    def is_empty(self):
        return not self.orders

    def draw(self):
        if self.pauses:
            self.pauses -= 1
            return None
        return self.orders.pop(0)


class Pool(RuleBasedStateMachine):
    """Any order of events."""

    workers = Bundle("workers")

    def __init__(self):
        super().__init__()
        self.books = Books(RETRIES)
        self.count = 0
        self.left = {}  # what is not settled, by name
        self.board = []  # numbers that no worker has taken, in their order
        self.taken = []  # numbers that workers have
        self.started = []  # names, as they were put up the first time

    def new(self):
        self.count += 1
        order = self.left[self.count] = Noted(self.count)
        return order

    @rule()
    def add(self):
        self.books.add(self.new())

    @rule(count=st.integers(1, 4))
    def add_source(self, count):
        self.books.add(Several([self.new() for _ in range(count)]))

    @rule()
    def cancel(self):
        for item in self.books.waiting()[-1:]:
            if isinstance(item, Noted):
                item.is_wanted = False
                self.left.pop(item.name, None)

    @rule(single=st.booleans())
    def put_up(self, single=True):
        again = list(self.books._again)
        ticket = self.books.draw(single=single)
        if ticket is not None:
            assert single or ticket in again or ticket.begun == 0
            assert ticket.is_wanted
            self.board.append(self.books.put_out(ticket))

    @rule()
    def worker_takes(self):
        if self.board:
            self.taken.append(self.board.pop(0))

    @rule()
    def worker_answers(self):
        if self.taken:
            ticket = self.books.take(self.taken.pop())
            del self.left[ticket.name]

    @rule()
    def worker_dies(self):
        if self.taken:
            number = self.taken.pop(0)
            blamed = self.books.lost(number)
            if blamed is not None:
                assert blamed.losses == RETRIES + 1
                del self.left[blamed.name]

    @rule()
    def board_is_taken_back(self):
        names = [self.books._out[number].name for number in self.board]
        self.books.take_back(self.board)
        self.board = []
        again = [ticket.name for ticket in self.books._again]
        assert again[: len(names)] == names

    @invariant()
    def every_order_is_somewhere(self):
        assert self.books.out == len(self.board) + len(self.taken)
        assert self.books.numbers() == {*self.board, *self.taken}

    def teardown(self):
        """Everything is settled at last."""
        for _ in range(1_000):
            if not self.books.total:
                break
            self.put_up()
            self.worker_takes()
            self.worker_answers()
        assert not self.books.total
        assert not self.left


TestBooks = Pool.TestCase
