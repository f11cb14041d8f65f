"""A record: the measurements of one function at one size, as a value and as bytes.

Reading checks the type and range of every field, and a checksum that detects a damaged file. The
checksum does not detect a forged one: whoever can write to the folder can write a record. So a
record is only advice, and loading it cannot run code.
"""

from __future__ import annotations

from ..decide.figures import TIME_BUCKETS, Costs, Profile, StartCost, size_bucket, time_bucket
from ..identity.codes import digest_of
from ..lookup import load
from ..measure.machine import Machine
from ..tuples import NamedTuple
from ..versions import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "FORMAT",
    "SIZES",
    "TIMES",
    "Environment",
    "Record",
    "costs_from_bytes",
    "costs_name",
    "costs_to_bytes",
    "environment_of",
    "file_name",
    "from_bytes",
    "from_data",
    "is_costs_name",
    "is_leftover",
    "is_record_name",
    "record_key",
    "to_bytes",
    "to_data",
]

FORMAT = 5
MEMORY_TOLERANCE = 0.2

SIZES = ("tiny", "small", "medium", "large", "xlarge")
TIMES = tuple(name for name, _ in TIME_BUCKETS)


class Environment(NamedTuple):
    """The conditions of a measurement that its advice depends on.

    Attributes:
        cores: physical cores.
        cpus: usable CPUs.
        method: start method.
        python: major and minor version, as "3.11".
        memory_bytes: memory the process may have.
    """

    cores: int
    cpus: int
    method: str
    python: str
    memory_bytes: int

    def accepts(self, other: Environment) -> bool:
        """Return whether advice measured in ``other`` holds here."""
        return (
            self.cores == other.cores
            and self.cpus == other.cpus
            and self.method == other.method
            and self.python == other.python
            and abs(self.memory_bytes - other.memory_bytes) <= MEMORY_TOLERANCE * self.memory_bytes
        )


class Record(NamedTuple):
    """The measurements of one function at one size.

    Attributes:
        func: fingerprint or digest of the code, 16 hexadecimal digits.
        size: size bucket of the data.
        items: exact number of items of the data.
        profile: the measurements.
        executor, n_jobs, chunksize: the plan that was made from them.
        environment: the environment they were made in.
        updated: when they were made, in seconds since the epoch.
        guess: whether it comes from another kind of machine and no run here has confirmed it.
        by_pickle: whether plain pickle can serialize the results, as far as known; a pool has
            nothing else.
    """

    func: str
    size: str
    items: int
    profile: Profile
    executor: str
    n_jobs: int
    chunksize: int
    environment: Environment
    updated: float
    guess: bool = False
    by_pickle: bool = True

    @property
    def time(self) -> str:
        """The time bucket of its items."""
        return time_bucket(self.profile.item_seconds)

    @property
    def key(self) -> str:
        """The key of the record: name, size and time bucket, and format."""
        return record_key(self.func, self.size, self.time)


def record_key(func: str, size: str, time_: str) -> str:
    """Return the key of a record.

    >>> record_key("00112233445566aa", "small", "fast")
    'func:00112233445566aa_size:small_time:fast_v:5'
    """
    return f"func:{func}_size:{size}_time:{time_}_v:{FORMAT}"


def file_name(key: str) -> str:
    """Return the file name of a key, without colons, which Windows does not allow.

    >>> file_name(record_key("00112233445566aa", "small", "fast"))
    'func-00112233445566aa_size-small_time-fast_v-5.json'
    """
    return key.replace(":", "-") + _SUFFIX


def is_record_name(name: str) -> bool:
    """Return whether a file name is that of a record, of this format or another.

    The library removes only files with names of its own: the user may keep others in the folder.

    >>> is_record_name("func-00112233445566aa_size-small_time-very_slow_v-1.json")
    True
    >>> is_record_name("func-notes_size-small_time-fast_v-1.json")
    False
    """
    parts = name.removesuffix(_SUFFIX).split("_")
    if not name.endswith(_SUFFIX) or len(parts) < 4:
        return False
    func, size, time_, version = parts[0], parts[1], "_".join(parts[2:-1]), parts[-1]
    return (
        func.startswith("func-")
        and _is_digest(func[len("func-") :])
        and size in [f"size-{bucket}" for bucket in SIZES]
        and time_ in [f"time-{bucket}" for bucket in TIMES]
        and version.startswith("v-")
        and version[len("v-") :].isdecimal()
    )


def is_leftover(name: str) -> bool:
    """Return whether a file name is that of a temporary file, which its writer renames at the end.

    >>> is_leftover("func-00112233445566aa_size-small_time-fast_v-1.json.77-0a1b2c3d4e5f.tmp")
    True
    >>> is_leftover("thesis.tmp")
    False
    """
    rest, _, unique = name.removesuffix(".tmp").rpartition(".")
    pid, _, random = unique.partition("-")
    return (
        name.endswith(".tmp")
        and (is_record_name(rest) or is_costs_name(rest))
        and pid.isdecimal()
        and len(random) > 0
        and set(random) <= _HEX
    )


def _is_digest(text: str) -> bool:
    # No regular expression: compiling one takes 0.1 ms, a fifth of a first hit.
    return len(text) == 16 and set(text) <= _HEX


_SUFFIX = ".json"
_HEX = frozenset("0123456789abcdef")


def environment_of(machine: Machine, method: str) -> Environment:
    """Return the environment of records made now."""
    return Environment(machine.cores, machine.cpus, method, NAME, machine.memory_bytes)


# Writing and reading ------------------------------------------------------------------------


def to_data(record: Record) -> dict[str, Any]:
    """Return a record as data for JSON."""
    return {
        "format": FORMAT,
        "key": record.key,
        **record._asdict(),
        "profile": record.profile._asdict(),
        "environment": record.environment._asdict(),
    }


def to_bytes(record: Record) -> bytes:
    """Return a record as JSON whose last member is a checksum of all before it."""
    return _sealed(to_data(record))


def from_bytes(data: bytes) -> Record:
    """Return the record in a file's bytes.

    Raises:
        ValueError: the bytes are not a record of this format, or damaged.
    """
    return from_data(_unsealed(data))


def _sealed(content: dict[str, Any]) -> bytes:
    json = load("json")  # takes 1 ms; only a process that writes or finds a record needs it

    body: bytes = json.dumps(content).encode()[:-1]
    return body + _seal(body)


def _unsealed(data: bytes) -> Any:
    body, mark, _ = data.rpartition(_MARK)
    if not mark or data != body + _seal(body):
        raise ValueError("its checksum is wrong")
    json = load("json")

    # Decoded, because json would first detect the encoding of bytes.
    return json.loads(body.decode() + "}")


_MARK = b', "checksum": "'


def _seal(body: bytes) -> bytes:
    return _MARK + digest_of(body).encode() + b'"}'


# The valid range of each number; anything else is a damaged or hostile record. No item time is
# measured below a nanosecond (``timing.Tally``), and forecasts divide by item times, so a record
# must not have a smaller one.
_RANGES = {
    "item_seconds": (1e-9, 1e7),
    "spread": (0, 1e8),
    "least_seconds": (1e-9, 1e7),
    "most_seconds": (1e-9, 1e7),
    "cpu_share": (0, 1e4),
    "arg_bytes": (0, 1e12),
    "result_bytes": (0, 1e12),
    "pickle_seconds": (0, 1e5),
    "send_seconds": (0, 1e5),
    "contention": (0, 1e4),
    "import_seconds": (0, 1e5),
    "memory_bytes": (0, 1 << 50),
    "items": (0, 1 << 62),
    "waiting_workers": (0, 1 << 20),
    "cores": (1, 1 << 20),
    "cpus": (1, 1 << 20),
    "n_jobs": (1, 1 << 20),
    "chunksize": (0, 1 << 62),
    "updated": (0, 1e12),
}


def from_data(data: Any) -> Record:
    """Return the record in decoded JSON, after a check of the type and range of every field.

    Raises:
        ValueError: the data is not a valid record.
    """
    try:
        return _checked(data)
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _checked(data: dict[str, Any]) -> Record:
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']!r}, not {FORMAT}")
    profile = Profile(*(_number(data["profile"], name, kind) for name, kind in _PROFILE))
    environment = data["environment"]
    record = Record(
        func=_fingerprint(data["func"]),
        size=_one_of(data["size"], SIZES),
        items=_number(data, "items", "int"),
        profile=profile,
        executor=_one_of(data["executor"], ("serial", "thread", "process", "remote")),
        n_jobs=_number(data, "n_jobs", "int"),
        chunksize=_number(data, "chunksize", "int"),
        environment=Environment(
            cores=_number(environment, "cores", "int"),
            cpus=_number(environment, "cpus", "int"),
            method=_method(environment["method"]),
            python=_text(environment["python"]),
            memory_bytes=_number(environment, "memory_bytes", "int"),
        ),
        updated=_number(data, "updated", "float"),
        guess=data.get("guess") is True,
        by_pickle=data.get("by_pickle") is not False,
    )
    ordered = profile.least_seconds <= profile.most_seconds
    if size_bucket(record.items) != record.size or not ordered or data["key"] != record.key:
        raise ValueError("its parts contradict each other")
    return record


def _method(value: Any) -> str:
    """Return a start method, or the kind and size of an engine, such as "dask:8"."""
    kind, colon, size = _text(value).partition(":")
    if not colon:
        return _one_of(value, ("fork", "spawn", "forkserver", "thread"))
    if not (kind.isidentifier() and size.isdecimal()):
        raise ValueError(f"{value!r} is neither a start method nor an engine")
    return f"{kind}:{size}"


_WHOLE = ("memory_bytes", "items", "waiting_workers")
_PROFILE = [(name, "int" if name in _WHOLE else "float") for name in Profile._fields]


def _number(data: dict[str, Any], name: str, kind: Any) -> Any:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        raise TypeError(f"{name}={value!r} is not a number")
    least, most = _RANGES[name]
    if not least <= value <= most:  # NaN fails here, too
        raise ValueError(f"{name}={value!r} is out of range")
    return value if kind == "int" else float(value)


# Costs of the machine -----------------------------------------------------------------------


def costs_name(machine: Machine) -> str:
    """Return the file name of the learned costs of a machine.

    >>> costs_name(Machine(cpus=2, cores=2, memory_bytes=10**9, reason=""))[:20]
    'costs_cores-2_cpus-2'
    """
    return f"costs_cores-{machine.cores}_cpus-{machine.cpus}_py-{NAME}_v-{FORMAT}{_SUFFIX}"


def is_costs_name(name: str) -> bool:
    """Return whether a file name is that of the learned costs of a machine."""
    parts = name.removesuffix(_SUFFIX).split("_")
    starts = ("costs", "cores-", "cpus-", "py-", "v-")
    return (
        name.endswith(_SUFFIX)
        and len(parts) == len(starts)
        and all(part.startswith(start) for part, start in zip(parts, starts, strict=True))
        and all(part.partition("-")[2].replace(".", "").isdecimal() for part in parts[1:])
    )


def costs_to_bytes(costs: Costs, updated: float) -> bytes:
    """Return the learned costs of a machine as JSON with a checksum.

    Args:
        costs: the costs.
        updated: when they were learned, in seconds since the epoch.
    """
    data = {"updated": updated, **costs._asdict()}
    for method in _START_METHODS:
        data[method] = data[method]._asdict()
    return _sealed({"format": FORMAT, **data})


def costs_from_bytes(data: bytes) -> tuple[Costs, float]:
    """Return the learned costs of a machine, every number checked, and when they were learned.

    Raises:
        ValueError: the bytes are not costs of this format, or damaged.
    """
    content = _unsealed(data)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, not {FORMAT}")
        found: dict[str, Any] = {}
        for name in Costs._fields:
            value = content[name]
            if name in _START_METHODS:
                found[name] = StartCost(*(_cost(value[part]) for part in StartCost._fields))
            else:
                found[name] = _cost(value)
        return Costs(**found), _number(content, "updated", "float")
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_START_METHODS = ("fork", "spawn", "forkserver", "thread")


def _cost(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e3:
        raise ValueError(f"{value!r} is no cost in seconds")
    return float(value)


def _one_of(value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)


def _fingerprint(value: Any) -> str:
    if not (isinstance(value, str) and _is_digest(value)):
        raise ValueError(f"{value!r} is no fingerprint")
    return value


def _text(value: Any) -> str:
    if not (isinstance(value, str) and len(value) < 100):
        raise ValueError(f"{value!r} is no short text")
    return value
