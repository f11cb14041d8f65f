"""What a call measures on its first items, and how that compares with the record."""

from __future__ import annotations

import _pickle as pickle  # ``pickle`` takes 5 ms to load

from ..decide.figures import WAITING_SHARE, Profile
from ..measure.machine import fresh_resident_bytes
from ..measure.probe import (
    LONGEST_BLOCK_SECONDS,
    Probe,
    peak_memory_bytes,
    pickling,
    profile_of,
)
from ..run.failure import NO_ITEM
from ..run.pickles import PROVEN_BYTES, dumps, dumps_result
from ..run.reductions import PROTOCOL
from .recall import NEIGHBOURHOOD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["PROBE_SECONDS", "Evidence"]

# Without a record, items are timed for this long before a plan is made: about the cost of starting
# one worker.
PROBE_SECONDS = 0.001
# Today's timings override the record after SURE_ITEMS items and PROBE_SECONDS, if they are outside
# its range by a factor of SURPRISE.
SURE_ITEMS = 3
SURPRISE = 1.5
# If the memory peak has grown by less than this, the resident memory is not read (4 us).
LEAST_GROWTH_BYTES = 4_000_000
# Below this time for one value, most of the time is the start of pickling. Results are then
# measured on more of them; for an item, the time of the start is subtracted.
LIGHT_PICKLE_SECONDS = 20e-6
# The quickest of this many times counts: the first one may include cold caches.
REPEATS = 3
# Plain pickle is tried only on results that take less than this. Slower ones are data, which it can
# serialize.
LIGHT_RESULT_SECONDS = 0.001
# The shortest time of pickling an item: that of an integer in a long list.
LEAST_PICKLE_SECONDS = 20e-9


class Evidence:
    """The measurements that one call has made on its items.

    Attributes:
        probe: times of the items that ran in the calling process.
        travel: sizes and pickling times; None until measured.
        by_pickle: whether plain pickle can serialize the results; None where not tested.
    """

    def __init__(self) -> None:
        self.probe = Probe()
        self.travel: Profile | None = None
        self.by_pickle: bool | None = None
        self._peak = peak_memory_bytes()
        self._grown: int | None = None

    @property
    def suffices(self) -> bool:
        """Whether these measurements are enough for a plan without a record."""
        return self.probe.seconds >= PROBE_SECONDS and self.probe.items >= 2

    @property
    def confines(self) -> str:
        """Why the items must stay in this process, "" if they need not.

        Processes that work for the function can serve only one process: a fork would share them.
        """
        return "the function has processes of its own that work for it" if self.probe.helped else ""

    def measure_growth(self) -> int:
        """Return the memory that an item needed at its peak beyond what it left, in bytes.

        It is measured once, after the first items; later it would include all results. Memory that
        the items left is excluded: results are counted by their size, and workers inherit modules
        and caches or fill them once.
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
            travel: gives the size of a result.
        """
        return self.measure_growth() + (int(travel.result_bytes) if travel is not None else 0)

    def profile(self, remembered: Profile | None) -> Profile:
        """Return the profile of an item: the recorded one, unless this run contradicts it."""
        if remembered is not None and not self._surprises(remembered):
            if self.travel is None:
                return remembered
            sent, sending = self.travel.arg_bytes, self.travel.send_seconds
            return remembered._replace(arg_bytes=sent, send_seconds=sending)
        probe, travel = self.probe, self.travel or remembered
        return profile_of(probe.usual, probe.mean, memory_bytes=self.needed(travel), travel=travel)

    def _surprises(self, remembered: Profile) -> bool:
        """Return whether today's items contradict the record."""
        probe = self.probe
        low, high = remembered.least_seconds / SURPRISE, remembered.most_seconds * SURPRISE
        if not probe.rest.items and probe.mean > high:  # may include imports
            return False
        if low <= probe.mean <= high:
            return remembered.cpu_share < WAITING_SHARE and self._computes()
        if probe.mean >= NEIGHBOURHOOD * remembered.item_seconds:
            return True
        return probe.items >= SURE_ITEMS and probe.seconds >= PROBE_SECONDS

    def in_doubt(self, remembered: Profile | None) -> bool:
        """Return whether to run one more block to show whether items wait.

        That is so if the last block looks like waiting and the items have not taken long so far.

        Args:
            remembered: the recorded profile; if it says that items wait, there is no doubt.
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
        """Measure the cost of sending items and results.

        Args:
            out: results so far.
            item: a sample item, ``NO_ITEM`` where items need not be sent.
            remembered: the recorded profile, which is more precise than a few values of today.

        Raises:
            SerializationError: items or results cannot be pickled, or results not unpickled.
        """
        sent = sending = 0.0
        if remembered is None:
            size, seconds = _pickling_results(out[-16:])
            if seconds < LIGHT_PICKLE_SECONDS and len(out) > 16:
                # For 16 small results, most of the time is the start of pickling.
                size, seconds = pickling(out[-512:], dumps)
        else:
            _pickling_results(out[-1:])  # raises unless today's can be sent as well
            size, seconds = remembered.result_bytes, remembered.pickle_seconds
            # 0 if the recorded run inherited its items; they are measured below if sent today.
            sent, sending = remembered.arg_bytes, remembered.send_seconds
        if seconds < LIGHT_RESULT_SECONDS:
            self.by_pickle = _can_pickle(out[-1:])
        if item is not NO_ITEM:
            sent, sending = pickling([item], dumps)
            if sending < LIGHT_PICKLE_SECONDS:  # most of it is the start of pickling
                again, start = (
                    min(pickling([value], dumps)[1] for _ in range(REPEATS))
                    for value in (item, None)
                )
                sending = max(min(sending, again) - start, LEAST_PICKLE_SECONDS)
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
    """Return what ``pickling`` returns, after a check that the results can be unpickled."""
    size, seconds = pickling(results, dumps)
    if size * len(results) <= PROVEN_BYTES:  # larger results are not checked
        dumps_result(results)
    return size, seconds


def _can_pickle(values: list[Any]) -> bool:
    """Return whether plain pickle can serialize some values."""
    apart: list[pickle.PickleBuffer] = []  # so that large buffers are not copied
    try:
        pickle.dumps(values, PROTOCOL, buffer_callback=apart.append)
    except Exception:  # noqa: BLE001 - a user's reduction may raise anything
        return False
    return True
