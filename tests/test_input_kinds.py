"""Every kind of input that people map over gives what map gives, wherever the items run."""

import array
import collections
import csv
import functools
import importlib.util
import io
import itertools
import sqlite3
import xml.etree.ElementTree as ElementTree

import numpy
import pandas
import pytest

from amorsize import parallelize, smart_imap, smart_imap_unordered, smart_map, smart_starmap
from tests import functions as f
from tests import programs

WAYS = [
    pytest.param({"n_jobs": 2, "mp_context": "fork"}, id="fork"),
    pytest.param({"n_jobs": 2, "mp_context": "forkserver"}, id="forkserver"),
    pytest.param({"n_jobs": 2, "backend": "thread"}, id="thread"),
    pytest.param({"n_jobs": 1}, id="serial"),
    pytest.param({}, id="decided"),
]

# Where the input is read does not depend on how workers start.
MOST_WAYS = [WAYS[0], pytest.param(*WAYS[1].values, id="forkserver", marks=pytest.mark.slow),
             *WAYS[2:]]  # fmt: skip

TABLE = pandas.DataFrame({"x": range(40), "y": [str(n % 3) for n in range(40)]})
ROWS = numpy.arange(120.0).reshape(40, 3)
STRUCTURED = numpy.array([(n, n / 2) for n in range(20)], dtype=[("a", "i4"), ("b", "f8")])
TEXT = "".join(f"{n},{n * n}\n" for n in range(50))
TREE = "<all>" + "".join(f"<one n='{n}'/>" for n in range(20)) + "</all>"


DATABASE = sqlite3.connect(":memory:", check_same_thread=False)
DATABASE.execute("create table numbers (n, square)")
DATABASE.executemany("insert into numbers values (?, ?)", ((n, n * n) for n in range(30)))


@pytest.fixture(scope="module", autouse=True)
def closed_database():
    """Close the database after the last test."""
    yield
    DATABASE.close()


def rows_of_database():
    """Return a cursor, which gives rows and has no length."""
    return DATABASE.execute("select * from numbers order by n")


INPUTS = {
    "list": lambda: [1, "two", None, 3.0],
    "tuple": lambda: (1, 2, 3),
    "string": lambda: "letters",
    "bytes": lambda: b"bytes",
    "bytearray": lambda: bytearray(b"bytes"),
    "memoryview": lambda: memoryview(b"bytes"),
    "range": lambda: range(3, 90, 2),
    "part of an endless range": lambda: range(10**20)[5:50],
    "set": lambda: {1, 2, 3},
    "frozenset": lambda: frozenset("abc"),
    "deque": lambda: collections.deque(range(20)),
    "array": lambda: array.array("d", range(20)),
    "dict": lambda: dict.fromkeys("abc", 1),
    "keys": lambda: dict.fromkeys("abc", 1).keys(),
    "values": {"a": 1, "b": 2}.values,
    "items": {"a": 1, "b": 2}.items,
    "counter": lambda: collections.Counter("abracadabra").elements(),
    "generator": lambda: (n * n for n in range(50)),
    "zip": lambda: zip(range(20), "abcdefghijklmnopqrst", strict=True),
    "map": lambda: map(str, range(30)),
    "filter": lambda: filter(None, range(30)),
    "enumerate": lambda: enumerate("abc"),
    "reversed": lambda: reversed([1, 2, 3]),
    "batches": lambda: iter(lambda source=iter(range(30)): [*itertools.islice(source, 7)], []),
    "chain": lambda: itertools.chain(range(5), "abc"),
    "product": lambda: itertools.product(range(4), "ab"),
    "lines": lambda: io.StringIO(TEXT),
    "bytes of lines": lambda: io.BytesIO(TEXT.encode()),
    "csv": lambda: csv.reader(io.StringIO(TEXT)),
    "dictionaries of csv": lambda: csv.DictReader(io.StringIO(TEXT), ["n", "square"]),
    "database": rows_of_database,
    "rows": lambda: ROWS,
    "columns": lambda: ROWS.T,
    "every other row": lambda: ROWS[::-2],
    "numbers of numpy": lambda: numpy.linspace(0, 1, 30),
    "records": lambda: STRUCTURED,
    "masked": lambda: numpy.ma.array(range(10), mask=[n % 2 for n in range(10)]),
    "flat": lambda: ROWS.flat,
    "objects of numpy": lambda: numpy.array([1, "two", None], dtype=object),
    "series": lambda: TABLE["y"],
    "dates": lambda: pandas.date_range("2026-01-01", periods=20),
    "categories": lambda: TABLE["y"].astype("category"),
    "index": lambda: TABLE.index,
    "frame": lambda: TABLE,
    "named tuples": TABLE.itertuples,
    "rows of a frame": TABLE.iterrows,
    "groups": lambda: TABLE.groupby("y"),
    "groups of a column": lambda: TABLE.groupby("y")["x"],
    "chunks of a file": lambda: pandas.read_csv(io.StringIO(TEXT), header=None, chunksize=8),
    "elements": lambda: ElementTree.fromstring(TREE).iter("one"),
}


def without_addresses(described):
    """Return descriptions with the addresses in them left out: those of copies differ."""
    return [
        [(kind, text.partition(" at 0x")[0]) for kind, text in arguments] for arguments in described
    ]


@pytest.mark.parametrize("way", MOST_WAYS)
@pytest.mark.parametrize("name", INPUTS)
def test_an_input_gives_what_map_gives(name, way):
    """The same items, of the same types, in the same order."""
    make = INPUTS[name]
    expected = without_addresses(map(f.described, make()))
    assert expected
    assert without_addresses(smart_map(f.described, make(), **way)) == expected
    assert without_addresses(smart_imap(f.described, make(), **way)) == expected
    found = without_addresses(smart_imap_unordered(f.described, make(), **way))
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("way", WAYS)
def test_the_lines_of_a_file(tmp_path, way):
    """An open file is read as it is needed, in its present place."""
    path = tmp_path / "lines.txt"
    path.write_text(TEXT)
    with path.open() as file:
        file.readline()
        found = smart_map(str.strip, file, **way)
        assert file.read() == ""
    assert found == [line.strip() for line in TEXT.splitlines()[1:]]


@pytest.mark.parametrize("way", WAYS)
def test_several_inputs_and_arguments_by_name(way):
    """The shortest input ends the call; partial gives the same argument to all items."""
    raised = functools.partial(pow, exp=2)
    assert smart_map(raised, [1, 2, 3], **way) == [1, 4, 9]
    assert smart_map(pow, range(1, 100), TABLE["x"], itertools.repeat(7), **way) == [
        pow(base, int(exp), 7) for base, exp in zip(range(1, 100), TABLE["x"], strict=False)
    ]
    rows = TABLE.itertuples(index=False, name=None)
    expected = [
        [("int", repr(x)), ("str", repr(y))]
        for x, y in zip(*TABLE.to_dict("list").values(), strict=True)
    ]
    assert smart_starmap(f.described, rows, **way) == expected
    assert smart_starmap(max, ROWS[:5], **way) == [max(row) for row in ROWS[:5]]


@pytest.mark.parametrize("way", WAYS)
def test_exceptions_as_results_carry_their_index(way):
    """With return_exceptions an exception stands in the place of its result, with its note."""
    found = smart_map(f.fail_on_multiples_of_30, range(70), return_exceptions=True, **way)
    for index in (30, 60):
        assert isinstance(found[index], ValueError)
        assert any(f"item {index}" in note for note in found[index].__notes__)
    assert [one for one in found if not isinstance(one, ValueError)] == [
        n for n in range(70) if n not in (30, 60)
    ]


def fails_now_and_then(x):
    f.busy_ms(x)
    if x % 7 == 0:
        raise ValueError(x)
    return x


def test_the_index_is_right_wherever_an_item_ran():
    """In this process, in workers, and in this process beside workers."""
    for data in (range(1, 300), iter(range(1, 300))):
        found = smart_map(fails_now_and_then, data, return_exceptions=True)
        errors = [(place, one) for place, one in enumerate(found) if isinstance(one, ValueError)]
        assert len(errors) == 42
        for place, error in errors:
            assert f"item {place}: {error.args[0]}" in error.__notes__[0]


def test_the_same_exception_again_and_again_has_one_note():
    """It stands in many places, and its note names the first."""
    error = ValueError("always")

    def work(x):
        raise error

    found = smart_map(work, range(50), return_exceptions=True, n_jobs=1)
    assert found == [error] * 50
    assert error.__notes__ == ["amorsize: raised for item 0: 0"]


def test_a_decorated_function_maps_over_the_same():
    """The methods of a decorated function take the same inputs."""
    described = parallelize(f.described)
    expected = [f.described(*row) for row in TABLE.itertuples(index=False)]
    assert described.starmap(TABLE.itertuples(index=False)) == expected
    assert list(described.imap(TABLE["x"], TABLE["y"])) == expected


POLARS = """
import polars
from amorsize import smart_imap, smart_map
from tests.functions import described

FRAME = polars.DataFrame({"x": range(30), "y": [0, 1, 2] * 10})
INPUTS = {
    "series": lambda: FRAME["x"],
    "frame": lambda: FRAME,
    "rows": FRAME.iter_rows,
    "named rows": lambda: FRAME.iter_rows(named=True),
    "slices": lambda: FRAME.iter_slices(7),
    "groups": lambda: FRAME.group_by("y", maintain_order=True),
}
WAYS = ({}, {"n_jobs": 1}, {"n_jobs": 2}, {"n_jobs": 2, "backend": "thread"})
for name, make in INPUTS.items():
    expected = list(map(described, make()))
    for way in WAYS:
        same = smart_map(described, make(), **way) == expected
        print(name, way, same and list(smart_imap(described, make(), **way)) == expected)
"""


def test_series_and_frames_of_polars(tmp_path):
    """In a program of their own: polars' threads prevent forks from then on."""
    if importlib.util.find_spec("polars") is None:
        pytest.skip("could not import polars")
    lines = programs.run_source(POLARS, tmp_path, PYTHONPATH=str(programs.ROOT)).out.splitlines()
    assert len(lines) == 24
    assert all(line.endswith("True") for line in lines), lines
