"""The costs of running workers on this machine: those learned so far, in this process and written.

Which costs a run teaches is decided in ``decide.learning``; this module keeps them.
"""

from __future__ import annotations

from ..decide.figures import FIRST_COSTS, Costs
from ..decide.learning import (
    Seen,
    bounded_costs,
    costs_drifted,
    faded_costs,
    learned_costs,
)
from ..memory import store
from ..memory.cache import CACHE, enabled

__all__ = ["doubt_costs", "forget_costs", "learn_costs", "machine_costs"]

# Learned costs are written again when a figure has moved by more than this share.
COSTS_DRIFT = 0.25
# Learned costs that nothing updates move half of the way back to the first costs in this time.
# What disturbs a machine comes and goes within a day. Chosen without measurement.
COSTS_HALF_LIFE_SECONDS = 24 * 3600
# They also move back by this share in each call that is serial only because of them. A start-up
# cost of 20 times the first one is down to 4 times after 38 such calls. If starts really are that
# slow, the next trial costs 6 % of the calls between two trials.
DOUBT = 0.02

_costs: dict[str, Costs] = {}  # by configured folder: the current costs
_saved: dict[str, Costs] = {}  # by configured folder: the costs last read or written
_doubted: set[str] = set()  # configured folders that this process has written its first doubt to


def machine_costs(*, use_cache: bool = True) -> Costs:
    """Return the costs of running workers on this machine, as far as known.

    Args:
        use_cache: whether to use learned costs.
    """
    if not use_cache:
        return FIRST_COSTS
    configured = store.configured_dir()
    costs = _costs.get(configured)
    if costs is None:
        if not enabled():
            return FIRST_COSTS
        costs = FIRST_COSTS
        found = CACHE.load_costs()
        if found is not None:
            learned, age = found
            costs = faded_costs(bounded_costs(learned), 1 - 0.5 ** (age / COSTS_HALF_LIFE_SECONDS))
        _costs[configured] = _saved[configured] = costs
    return costs


def learn_costs(seen: Seen) -> None:
    """Correct the machine's costs by one real run, see ``learned_costs``."""
    _keep_costs(learned_costs(machine_costs(), seen))


def doubt_costs() -> None:
    """Move the learned costs back a little, because they alone made a call serial."""
    configured = store.configured_dir()
    _keep_costs(faded_costs(machine_costs(), DOUBT), always=configured not in _doubted)
    _doubted.add(configured)


def _keep_costs(costs: Costs, *, always: bool = False) -> None:
    """Make these the current costs, and write them if they have moved (or ``always``)."""
    configured = store.configured_dir()
    _costs[configured] = costs
    moved = always or costs_drifted(_saved.get(configured, FIRST_COSTS), costs, COSTS_DRIFT)
    if moved and enabled():
        _saved[configured] = costs
        CACHE.save_costs(costs)


def forget_costs() -> None:
    """Forget all learned costs."""
    _costs.clear()
    _saved.clear()
    _doubted.clear()
