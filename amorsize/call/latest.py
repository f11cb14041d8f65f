"""The last call of each thread, kept so that its report can be made when somebody asks for it.

A report takes up to 0.8 ms, and most calls end without one. What is kept holds no items, and no
function that holds data.
"""

from __future__ import annotations

import threading
import time
import weakref
from types import FunctionType, MethodType

from .outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..options import Options
    from ..show.report import RunReport
    from .decision import Decision
    from .ran import Ran

__all__ = ["LATEST", "Finished", "Latest", "last_run"]


class Finished:
    """A finished call, with its report once that was made.

    Args:
        func: its function. It is kept if it holds no data; else as long as others keep it.
        decision: what it decided.
        options: its options.
        produced: results given to the caller.
        elapsed: duration of the call, s.
        ran: what the engine did that ran the rest, None without one.
        input_seconds: time that the caller needed to read an item of the input, s.
        kept: results that ``resume`` had kept of earlier calls.
    """

    __slots__ = ("_begun", "_decision", "_elapsed", "_func", "_input", "_kept", "_name", "_options",
                 "_produced", "_ran", "_report")  # fmt: skip

    def __init__(
        self,
        func: Callable[..., Any],
        decision: Decision,
        options: Options,
        produced: int,
        elapsed: float,
        ran: Ran | None,
        input_seconds: float,
        kept: int = 0,
    ) -> None:
        self._func: Any = func if _is_bare(func) else _reference(func)
        self._name: str = getattr(func, "__qualname__", "") or type(func).__qualname__
        self._decision = decision
        self._options = options
        self._produced = produced
        self._elapsed = elapsed
        self._ran = ran
        self._input = input_seconds
        self._kept = kept
        self._begun = time.monotonic() - elapsed
        self._report: RunReport | None = None

    @property
    def outcome(self) -> Outcome:
        """The call as a value, made when it is asked for: few calls need it.

        It is not kept: recording a call may look the function up, which the report then tells.
        """
        decision = self._decision
        return Outcome(
            function=self._name.removesuffix(".__wrapped__"),  # see ``ParallelFunction``
            options=self._options,
            items=decision.total,
            jobs=decision.jobs,
            produced=self._produced,
            elapsed=self._elapsed,
            evidence=decision.evidence,
            ran=self._ran,
            adviser=decision.adviser,
            plan=decision.plan,
            serial_plan=decision.serial_plan,
            forecast=decision.forecast,
            decided=decision.decided,
            reason=decision.reason,
            warnings=decision.warnings,
            gave_up=decision.gave_up,
            steps=decision.steps,
            input_seconds=self._input,
            begun=self._begun,
            kept=self._kept,
        )

    @property
    def report(self) -> RunReport:
        """The report of the call."""
        if self._report is None:
            from .reporting import report_of  # few calls make a report

            func = self._func() if isinstance(self._func, weakref.ref) else self._func
            self._report = report_of(self.outcome, func)
        return self._report

    def let_go(self) -> None:
        """Let go of the function, the items and the options' callables: the call is over."""
        self._decision.let_go()
        self._options = self._options.without_callables()


class Latest(threading.local):
    """The last finished call of each thread.

    Attributes:
        call: that of the present thread; None before the first.
    """

    call: Finished | None = None

    @property
    def report(self) -> RunReport | None:
        """The report of the present thread's last call; None before the first."""
        return None if self.call is None else self.call.report


LATEST = Latest()


def last_run() -> RunReport | None:
    """Return the report of this thread's last call of any form, None before the first.

    A lazy form counts when its iterator ends. The present load by other programs is reported, and
    not that of the call.

    >>> from amorsize import last_run, smart_map
    >>> smart_map(abs, [-1, 2, -3])
    [1, 2, 3]
    >>> last_run().items
    3
    """
    return LATEST.report


def _is_bare(func: Callable[..., Any]) -> bool:
    """Return whether a function holds no data of its own."""
    if type(func) is not FunctionType:
        return False
    held = func.__closure__ or func.__defaults__ or func.__kwdefaults__ or func.__dict__
    return not held


def _reference(func: Callable[..., Any]) -> weakref.ref[Any] | None:
    """Return a weak reference to a function; None where there can be none, as for a builtin."""
    try:
        if type(func) is MethodType:  # made anew by each access: it lives as long as its object
            return weakref.WeakMethod(func)
        return weakref.ref(func)
    except TypeError:
        return None
