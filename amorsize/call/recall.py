"""What is remembered of a function for calls of one size: found, confirmed, recorded anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..decide.figures import UNKNOWN_SIZE, Profile, size_bucket, time_bucket
from ..decide.learning import merged_profile
from ..identity.coarse import coarse_digest
from ..memory.cache import CACHE, enabled
from ..memory.naming import Name, is_settled, name_of, name_of_code
from ..memory.records import Record, environment_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..measure.machine import Machine

__all__ = ["AS_EXPECTED", "NEIGHBOURHOOD", "Recall"]

# A record is used while the time of today's first items is within this factor of its range: the
# width of one time bucket to each side.
NEIGHBOURHOOD = 10.0
# What differs from the record by at most this share was expected, and is not recorded anew.
AS_EXPECTED = 0.1


class Recall:
    """The record of one function during one call.

    Args:
        func: the function.
        items: number of items of the call, None when unknown; then records stay in this process.
        machine: the machine as it was when the call began.
        method: start method that the record is for, even if another one is used this time.
        use_cache: whether to use the cache.

    Attributes:
        record: the valid record that was found, None on a miss or if the run contradicted it.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        items: int | None,
        machine: Machine,
        method: str,
        *,
        use_cache: bool,
    ) -> None:
        self.record: Record | None = None
        self._func = func
        self._items = items
        self._machine = machine
        self._method = method
        self._cached = use_cache and enabled()
        self._name: Name | None = None
        self._late = False  # whether the items had run before the look-up

    @property
    def hit(self) -> bool:
        """Whether a record was found, and the run has not contradicted it."""
        return self.record is not None

    def look_up(
        self, *, only_memory: bool = False, late: bool = False, by_pickle: bool = False
    ) -> None:
        """Find the newest valid record of the function for this size.

        Args:
            only_memory: whether to look in memory only, not in the folder.
            late: whether the items have run already. Then nothing shows whether the function
                changes values it uses.
            by_pickle: whether to ignore a record if plain pickle cannot serialize the results.
        """
        if not self._cached:
            return
        name = self._name = self._name or name_of(self._func)
        self._late = late
        only_memory = only_memory or self._items is None
        by_code = not (name.coarse or only_memory)
        self.record = CACHE.look_up(
            name.digest,
            self._items,
            environment_of(self._machine, self._method),
            only_memory=only_memory,
            otherwise=partial(coarse_digest, self._func) if by_code else None,
        )
        if self.record is not None and self.record.func != name.digest:
            self._name = name_of_code(self._func)
        if by_pickle and self.record is not None and not self.record.by_pickle:
            self.record = None

    def let_go(self) -> None:
        """Let go of the function, since the call is over."""
        del self._func

    def _final_name(self) -> Name:
        """Return the name for the function's record, now that its items have run."""
        name = self._name or name_of(self._func)
        if name.coarse:
            return name
        if self._late:
            return name._replace(stable=name.stable and is_settled(self._func))
        return name if name_of(self._func).digest == name.digest else name_of_code(self._func)

    @property
    def is_stable(self) -> bool:
        """Whether the function is known to use nothing whose content cannot be read."""
        return self._name is not None and self._name.stable and not self._name.coarse

    @property
    def has_guess(self) -> bool:
        """Whether the record comes from another kind of machine."""
        return self.record is not None and self.record.guess

    @property
    def expected_items(self) -> int | None:
        """How many items the last such call had, None when not known."""
        return None if self.record is None else self.record.items

    @property
    def profile(self) -> Profile | None:
        """The recorded profile, None when there is none."""
        return None if self.record is None else self.record.profile

    def confirm(self, item_seconds: float, *, first: bool) -> Profile | None:
        """Drop the record if this call contradicts it; return the recorded profile that is left.

        Args:
            item_seconds: mean time of the first items of this call. It contradicts the record if it
                is outside its range by more than ``NEIGHBOURHOOD``.
            first: whether only the first block has run. It may include imports, so a time that is
                too long does not contradict the record.
        """
        if self.record is not None:
            known = self.record.profile
            low = known.least_seconds / NEIGHBOURHOOD
            high = known.most_seconds * NEIGHBOURHOOD
            if item_seconds < low or (item_seconds > high and not first):
                self.record = None
                if self._items is not None:
                    CACHE.note_contradiction()
        return self.profile

    def remember(
        self,
        profile: Profile,
        *,
        executor: str,
        n_jobs: int,
        chunksize: int,
        run_seconds: float,
        by_pickle: bool | None,
        items: int,
    ) -> None:
        """Record the measurements of a run or a sample, and the plan made from them.

        Args:
            profile: the measurements.
            executor: "serial", "thread" or "process".
            n_jobs: workers.
            chunksize: first or only chunk size.
            run_seconds: duration of the run or the sample.
            by_pickle: whether plain pickle can serialize the results, None where not tested.
            items: number of items of the call, as it turned out.
        """
        if not self._cached:
            return
        name = self._final_name()
        old = self.record
        if (
            old is not None
            and not old.guess
            and time_bucket(old.profile.item_seconds) == time_bucket(profile.item_seconds)
        ):
            profile = merged_profile(old.profile, profile)
        if by_pickle is None:
            by_pickle = old is None or old.by_pickle
        CACHE.remember(
            Record(
                func=name.digest,
                size=UNKNOWN_SIZE if self._items is None else size_bucket(self._items),
                items=items,
                profile=profile,
                executor=executor,
                n_jobs=n_jobs,
                chunksize=chunksize,
                environment=environment_of(self._machine, self._method),
                updated=time.time(),
                by_pickle=by_pickle,
            ),
            run_seconds=run_seconds,
            stable=name.stable and self._items is not None,
        )
