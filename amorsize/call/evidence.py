"""What a call measures of its items while it runs the first of them, held against what is known."""

from __future__ import annotations

import pickle

from ..decide.model import WAITING_SHARE, Profile
from ..measure.machine import fresh_resident_bytes
from ..measure.probe import (
    LONGEST_BLOCK_SECONDS,
    Probe,
    peak_memory_bytes,
    pickling,
    profile_of,
)
from ..run.failure import MISSING
from ..run.transport import PROVEN_BYTES, dumps, dumps_result
from .adviser import NEIGHBOURHOOD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PROBE_SECONDS", "Evidence"]

# Without a remembered profile, items are timed for this long before a plan is made of them: about
# what starting one worker costs.
PROBE_SECONDS = 0.001
# So many items, if they took PROBE_SECONDS, are believed against what is remembered, when they are
# so far out of its range.
SURE_ITEMS = 3
SURPRISE = 1.5
# Growth of the peak below this is not worth asking (4 us) what is left of it.
LEAST_GROWTH_BYTES = 4_000_000
# Pickling that takes less for each is measured on more.
LIGHT_PICKLE_SECONDS = 20e-6
# What takes longer is data, which pickle can carry.
LIGHT_RESULT_SECONDS = 0.001
# An integer of a long list.
LEAST_PICKLE_SECONDS = 20e-9


class Evidence:
    """What one call has measured of its items.

    Attributes:
        probe: times of those that ran in the calling process.
        travel: sizes and pickling times; None until measured.
        by_pickle: whether pickle can carry the results; None where that is not known.
    """

    def __init__(self) -> None:
        self.probe = Probe()
        self.travel: Profile | None = None
        self.by_pickle: bool | None = None
        self._peak = peak_memory_bytes()
        self._grown: int | None = None

    @property
    def suffices(self) -> bool:
        """Whether a plan can be made of it alone."""
        return self.probe.seconds >= PROBE_SECONDS and self.probe.items >= 2

    @property
    def confines(self) -> str:
        """Why the items must stay in this process, "" if nothing is in the way.

        Processes that work for the function can serve this process only: a fork would share them.
        """
        return "the function has processes of its own that work for it" if self.probe.helped else ""

    def grown(self) -> int:
        """Return what an item needed at its peak, in bytes, beyond what it left behind.

        That is asked once, after the first items; later there would be all results in it. What they
        left are results, which are counted by their size, and modules and caches, which workers
        inherit or fill once.
        """
        if self._grown is None:
            peak = peak_memory_bytes()
            self._grown = 0
            if peak > self._peak + LEAST_GROWTH_BYTES:
                self._grown = max(0, peak - max(self._peak, fresh_resident_bytes()))
        return self._grown

    def needed(self, travel: Profile | None) -> int:
        """Return the memory that a worker needs for an item, in bytes.

        Args:
            travel: has the size of a result.
        """
        return self.grown() + (int(travel.result_bytes) if travel is not None else 0)

    def profile(self, remembered: Profile | None) -> Profile:
        """Return what is known of an item: remembered, unless this run says otherwise."""
        if remembered is not None and not self._surprises(remembered):
            if self.travel is None:
                return remembered
            sent, sending = self.travel.arg_bytes, self.travel.send_seconds
            return remembered._replace(arg_bytes=sent, send_seconds=sending)
        probe, travel = self.probe, self.travel or remembered
        return profile_of(probe.usual, probe.mean, memory_bytes=self.needed(travel), travel=travel)

    def _surprises(self, remembered: Profile) -> bool:
        """Return whether today's items are outside the range of those that are remembered."""
        probe = self.probe
        low, high = remembered.least_seconds / SURPRISE, remembered.most_seconds * SURPRISE
        if not probe.rest.items and probe.mean > high:  # it may have paid for imports
            return False
        if low <= probe.mean <= high:
            return remembered.cpu_share < WAITING_SHARE and self._computes()
        if probe.mean >= NEIGHBOURHOOD * remembered.item_seconds:
            return True
        return probe.items >= SURE_ITEMS and probe.seconds >= PROBE_SECONDS

    def in_doubt(self, remembered: Profile | None) -> bool:
        """Return whether one more block should show if items wait: so it seems, and it is not long.

        Args:
            remembered: what is known of them; if that says that they wait, nothing is in doubt.
        """
        probe = self.probe
        if probe.tally.known_seconds or probe.seconds > 2 * LONGEST_BLOCK_SECONDS:
            return False
        known = remembered is not None and remembered.cpu_share < WAITING_SHARE
        return probe.idle and not known

    def _computes(self) -> bool:
        """Return whether today's items are known to compute."""
        usual = self.probe.usual
        return usual.known_seconds >= PROBE_SECONDS and usual.cpu_share >= WAITING_SHARE

    def measure_travel(self, out: list[Any], item: Any, remembered: Profile | None) -> None:
        """Measure what sending items and results costs.

        Args:
            out: results so far.
            item: one to come, ``MISSING`` where items need not be sent.
            remembered: what is known of them, which is measured better than a few can be.

        Raises:
            SerializationError: they cannot be pickled, or results not be opened again.
        """
        sent = sending = 0.0
        if remembered is None:
            size, seconds = _pickling_results(out[-16:])
            if seconds < LIGHT_PICKLE_SECONDS and len(out) > 16:
                # Of so few small results the time is that of beginning to pickle.
                size, seconds = pickling(out[-512:], dumps)
        else:
            _pickling_results(out[-1:])  # today's can be sent as well
            size, seconds = remembered.result_bytes, remembered.pickle_seconds
            # The items of that time may have been inherited.
            sent, sending = remembered.arg_bytes, remembered.send_seconds
        if seconds < LIGHT_RESULT_SECONDS:
            self.by_pickle = _can_pickle(out[-1:])
        if item is not MISSING:
            sent, sending = pickling([item], dumps)
            if sending < LIGHT_PICKLE_SECONDS:  # most of which was beginning to pickle
                sending = max(sending - pickling([None], dumps)[1], LEAST_PICKLE_SECONDS)
        self.travel = Profile(
            item_seconds=1.0,
            arg_bytes=sent,
            result_bytes=size,
            pickle_seconds=seconds,
            send_seconds=sending,
            contention=remembered.contention if remembered else 0.0,
            import_seconds=remembered.import_seconds if remembered else 0.0,
            waiting_workers=remembered.waiting_workers if remembered else 0,
        )


def _pickling_results(results: list[Any]) -> tuple[float, float]:
    """Return what ``pickling`` does, of results that can also be opened where they go."""
    size, seconds = pickling(results, dumps)
    if size * len(results) <= PROVEN_BYTES:  # what is larger is not opened
        dumps_result(results)
    return size, seconds


def _can_pickle(values: list[Any]) -> bool:
    """Return whether pickle itself can carry some values."""
    apart: list[pickle.PickleBuffer] = []  # what is large need not be copied
    try:
        pickle.dumps(values, pickle.HIGHEST_PROTOCOL, buffer_callback=apart.append)
    except Exception:  # noqa: BLE001 - a user's reduction may raise anything
        return False
    return True
