"""Resource limits: warns, requests throttling step by step, and ends the run as a last resort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Literal

from gearshift.training.callbacks.base import Action, Callback, Emit, Outcome, Step
from gearshift.training.resources.monitor import RESOURCES
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    from gearshift.training.resources.monitor import Reading, ResourceMonitor
    from gearshift.training.settings import Limits

WARNINGS = 3
"""Readings in a row over a limit that count as a critical one."""
CALM = 10
"""Readings in a row after which a limit that is exceeded again is a new incident."""
# Throttling steps in order, with the resources they help; no step frees a disk.
_HELPS = {
    Action.FREE_MEMORY: {"ram", "swap", "gpu", "cpu", "temperature"},
    Action.FEWER_WORKERS: {"ram", "swap", "cpu", "temperature"},
    Action.SMALLER_BATCH: {"ram", "swap", "gpu"},
}
# Below a critical value: a run that uses all of its CPU time is healthy, and chips slow down by
# themselves before heat harms them.
_NEVER_FATAL = ("cpu", "temperature")


class LimitEnforcer(Callback):
    """Compares readings of the machine with limits; one per rank, each for its own machine.

    A reading over a limit is a warning. Three in a row, or one critical value, request relief, and the
    machine is measured again after the next step: unused memory is released first, then come fewer
    workers, smaller micro-batches (once, if a value is critical), and at last the run saves and ends.
    After CALM readings under all limits the first step comes first again.

    A limit that is exceeded before the first step cannot be the run's doing: it is reported once,
    and only the critical value of that resource counts from then on; of a disk, which is common on
    shared file systems, not even that if it is exceeded already.
    """

    def __init__(
        self, limits: Limits, monitor: ResourceMonitor, emit: Emit, chosen: Sequence[str] = ()
    ):
        """`emit` gets each event; `chosen`: the resources whose limits the user set."""
        self._monitor = monitor
        self._emit = emit
        self._chosen = chosen
        # None: it is not watched, or no longer.
        self._limits = {name: getattr(limits, name) for name in RESOURCES}
        self._critical = {name: getattr(limits.critical, name, None) for name in RESOURCES}
        # Readings in a row over a limit, or under all of them.
        self._warnings = self._calm = 0
        # Throttling steps that are possible, and those taken since the machine was calm.
        self._left = Action.FREE_MEMORY
        self._taken = Action.NOTHING
        # The step that all ranks will take; once they have, its effect is measured.
        self._relief: Literal["requested", "taken"] | None = None

    def start(self, train_plan: TrainPlan) -> None:
        reading = self._monitor.read()
        for name in self._chosen:
            if reading[name] is None and name != "cpu":  # its first reading comes later
                self._emit(
                    "warning", {"text": f"limits.{name} cannot act: this machine reports no {name}"}
                )
        if "disk" in _over(reading, self._critical):
            self._limits["disk"] = self._critical["disk"] = None
            self._emit("limit_given_up", {"over": ["disk"], **reading})
        if exceeded := _over(reading, self._limits):
            self._limits |= dict.fromkeys(exceeded)
            self._emit("limit_exceeded_at_start", {"over": exceeded, **reading})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Check a new reading; after a throttling step, take one."""
        if self._relief == "taken":
            self._relief, reading = None, self._monitor.read()
            over = _over(reading, self._limits) or _over(reading, self._critical)
            self._emit("relieved", {"still_over": over, **reading})
            return self._check(reading, warns=False)
        new = self._monitor.new
        self._monitor.new = None
        return Action.NOTHING if new is None or self._relief else self._check(new, warns=True)

    def throttled(self, available: Action) -> None:
        self._left = available | Action.FREE_MEMORY
        if self._relief == "requested":
            self._relief = "taken"

    def end(self, outcome: Outcome) -> None:
        self._monitor.stop()

    def _check(self, reading: Reading, warns: bool) -> Action:
        """The throttling step that is left and helps; else the end, or a resource is given up."""
        critical = _over(reading, self._critical)
        over = _over(reading, self._limits)
        if "disk" in over:  # a warning only
            over.remove("disk")
            self._limits["disk"] = None
            self._emit("disk_filling", {"over": ["disk"], **reading})
        over = [*dict.fromkeys([*over, *critical])]
        if not over:
            self._warnings = 0
            self._calm = self._calm + 1
            if self._calm >= CALM:
                self._taken = Action.NOTHING
            return Action.NOTHING
        self._warnings = self._warnings + 1
        self._calm = 0
        if warns:  # else the event "relieved" has the reading
            self._emit("limit_warning", {"over": over, "warnings": self._warnings, **reading})
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        used = self._taken & (
            Action.FREE_MEMORY | (Action.SMALLER_BATCH if critical else Action.NOTHING)
        )
        for action, helps in _HELPS.items() if "disk" not in critical else ():
            if action in self._left & ~used and helps.intersection(over):
                if action is Action.FREE_MEMORY:
                    self._emit("throttled", {"critical": critical, "over": over, **reading})
                self._taken |= action
                self._relief = "requested"
                return action
        if fatal := [name for name in over if name not in _NEVER_FATAL or name in critical]:
            self._emit("pressure", {"over": fatal, **reading})
            return Action.LIMIT_EXCEEDED | Action.SAVE
        self._limits |= dict.fromkeys(over)
        self._emit("limit_given_up", {"over": over, **reading})
        return Action.NOTHING


def _over(reading: Reading, limits: Mapping[str, float | None]) -> list[str]:
    return [name for name, limit in limits.items() if (reading[name] or 0) > (limit or inf)]
