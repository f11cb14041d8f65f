"""What an engine did, in figures that hold no items, no function and no process."""

from __future__ import annotations

from ..run.course import Course
from ..tuples import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..run.engine import Engine

__all__ = ["CrewFigures", "Ran", "ran_of"]


class CrewFigures(NamedTuple):
    """The figures of the last crew of a run; ``run.crew.Crew`` describes them."""

    workers: int
    started_at: float
    start_seconds: float
    end_seconds: float
    ready_at: float | None
    reused: bool
    shipped_bytes: int
    nodes: dict[int, str]


class Ran(NamedTuple):
    """What an engine did.

    Attributes:
        course: what the chunks took.
        jobs: number of processes or threads that ran items, the caller included if it shared.
        workers: number of workers at the end.
        shares: whether the caller ran items like a worker.
        bounded: whether a consumer set the pace.
        retried: items handed out again after a worker was lost.
        retreats: how often the caller took over from slow workers.
        memory_bytes: how much the memory of a worker grew; None where not measured.
        crew: figures of the last crew; None where none was started.
    """

    course: Course
    jobs: int
    workers: int
    shares: bool
    bounded: bool
    retried: int
    retreats: int
    memory_bytes: int | None
    crew: CrewFigures | None


def ran_of(engine: Engine) -> Ran:
    """Return what an engine did."""
    crew = engine.crew
    figures = None
    if crew is not None:
        figures = CrewFigures(
            crew.workers,
            crew.started_at,
            crew.start_seconds,
            crew.end_seconds,
            crew.ready_at,
            crew.reused,
            crew.shipped_bytes,
            crew.nodes,
        )
    return Ran(
        course=engine.course,
        jobs=engine.jobs,
        workers=engine.workers,
        shares=engine.policy.shares,
        bounded=engine.policy.bounded,
        retried=engine.ledger.retried,
        retreats=engine.monitor.retreats,
        memory_bytes=engine.memory.grown,
        crew=figures,
    )
