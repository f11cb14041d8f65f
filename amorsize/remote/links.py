"""The ways to engines, as the last calls in this process have shown them."""

from __future__ import annotations

from ..decide.remote import FIRST_LINK, Link

__all__ = ["link_of", "note_link"]

_links: dict[str, Link] = {}  # by kind and size of the engine


def link_of(engine: str) -> Link:
    """Return the way to an engine.

    Args:
        engine: its kind and size, such as "dask:8".
    """
    return _links.get(engine, FIRST_LINK)


def note_link(engine: str, round_trip: float, byte_seconds: float | None) -> None:
    """Note what a call has shown.

    Args:
        engine: kind and size of the engine.
        round_trip: what a chunk takes beside its items, at least, s.
        byte_seconds: time for one byte there and back, s; None where none was large enough.
    """
    before = link_of(engine)
    _links[engine] = Link(round_trip, before.byte_seconds if byte_seconds is None else byte_seconds)
