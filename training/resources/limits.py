"""Resource limits: warns, requests throttling step by step, and ends the run as a last resort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, Emit, Numbers, Outcome, Step
from training.resources.monitor import RESOURCES
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from training.resources.monitor import Reading, ResourceMonitor
    from training.settings import Critical, Limits

WARNINGS = 3
"""Readings in a row over a limit that count as a critical one."""
CALM = 10
"""Readings in a row after which a limit that is exceeded again is a new incident."""
# Throttling steps in order, with the resources they help; no step frees a disk.
_HELPS: Mapping[Action, frozenset[str]] = {
    Action.FREE_MEMORY: frozenset(RESOURCES),
    Action.FEWER_WORKERS: frozenset({"ram", "swap", "cpu", "temperature"}),
    Action.SMALLER_BATCH: frozenset({"ram", "swap", "gpu"}),
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
    and only the critical value of that resource counts from then on. A disk that is over its
    critical value already is not watched: that is common on shared file systems. `emit` gets each
    event.
    """

    def __init__(
        self, limits: Limits, monitor: ResourceMonitor, emit: Emit, chosen: Sequence[str] = ()
    ) -> None:
        """`chosen`: the resources whose limits the user set."""
        self._chosen = [name for name in chosen if name != "cpu"]  # which has no first reading
        # Those that are still watched.
        self._limits, self._critical = _by_resource(limits), _by_resource(limits.critical)
        self._monitor, self._emit = monitor, emit
        self._warnings = self._calm = 0
        # Throttling steps that are possible, and those taken since the machine was calm.
        self._left, self._taken = Action.FREE_MEMORY, Action.NOTHING
        # All ranks will take the requested step; they have, and its effect is to be measured.
        self._is_awaited = self._measures = False

    def start(self, train_plan: TrainPlan) -> None:
        reading = self._monitor.read()
        for name in self._chosen:
            if reading[name] is None:
                text = f"limits.{name} cannot act: this machine reports no {name}"
                self._emit("warning", {"text": text})
        if "disk" in _over(reading, self._critical):
            self._give_up(["disk"], reading)
        if exceeded := _over(reading, self._limits):
            for name in exceeded:
                del self._limits[name]
            self._emit("limit_exceeded_at_start", {"over": exceeded, **reading})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Check a new reading; after a throttling step, take one."""
        reading, measures = None if self._is_awaited else self._monitor.take(), self._measures
        if measures:
            self._measures, reading = False, self._monitor.read()
            over = _over(reading, self._limits) or _over(reading, self._critical)
            self._emit("relieved", {"still_over": over, **reading})
        return Action.NOTHING if reading is None else self._check(reading, warns=not measures)

    def throttled(self, available: Action) -> None:
        self._left = available | Action.FREE_MEMORY
        self._measures, self._is_awaited = self._is_awaited, False

    def end(self, outcome: Outcome) -> None:
        self._monitor.stop()

    def _check(self, reading: Reading, warns: bool) -> Action:
        """The throttling step that is left and helps; else the end, or a resource is given up."""
        critical, over = _over(reading, self._critical), _over(reading, self._limits)
        if "disk" in over:  # a warning only
            over.remove("disk")
            del self._limits["disk"]
            self._emit("disk_filling", {"over": ["disk"], **reading})
        if not over and not critical:
            self._warnings, self._calm = 0, self._calm + 1
            self._taken = Action.NOTHING if self._calm >= CALM else self._taken
            return Action.NOTHING
        self._warnings, self._calm = self._warnings + 1, 0
        if warns:  # else the event "relieved" has the reading
            self._emit("limit_warning", {"over": over or critical, "warnings": self._warnings, **reading})
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        over = [*dict.fromkeys([*over, *critical])]
        used = self._taken & (Action.FREE_MEMORY | (Action.SMALLER_BATCH if critical else Action.NOTHING))
        for action, helps in _HELPS.items() if "disk" not in critical else ():
            if action in self._left & ~used and helps.intersection(over):
                if action is Action.FREE_MEMORY:
                    self._emit("throttled", {"critical": critical, "over": over, **reading})
                self._taken |= action
                self._is_awaited = True
                return action
        if fatal := [name for name in over if name not in _NEVER_FATAL or name in critical]:
            self._emit("pressure", {"over": fatal, **reading})
            return Action.LIMIT_EXCEEDED | Action.SAVE
        self._give_up(over, reading)
        return Action.NOTHING

    def _give_up(self, names: Sequence[str], reading: Reading) -> None:
        """Watch these no longer: nothing that a run does helps."""
        for name in names:
            self._limits.pop(name, None)
            self._critical.pop(name, None)
        self._emit("limit_given_up", {"over": names, **reading})


def _by_resource(limits: Limits | Critical) -> dict[str, float]:
    values = {name: getattr(limits, name, None) for name in RESOURCES}  # CPU use has no critical limit
    return {name: limit for name, limit in values.items() if limit is not None}


def _over(reading: Reading, limits: Numbers) -> list[str]:
    return [name for name, limit in limits.items() if (reading[name] or 0) > limit]
