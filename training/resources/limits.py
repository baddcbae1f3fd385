"""Resource limits: warns, requests throttling step by step, and ends the run as a last resort."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, Outcome, Step
from training.resources.monitor import RESOURCES
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from training.resources.monitor import MachineReading, ResourceMonitor
    from training.settings import Critical, Limits

WARNINGS = 3
"""Readings in a row over a limit that count as a critical one."""
MEMORY_READINGS = 10
"""Readings after which a limit that is exceeded again is a new incident."""
_HELPS: Mapping[Action, frozenset[str]] = {
    Action.FEWER_WORKERS: frozenset({"ram", "swap", "cpu", "temperature"}),
    Action.SMALLER_BATCH: frozenset({"ram", "swap", "gpu"}),
}
"""Throttling steps in order, with the resources they help; no step frees a disk."""
_NEVER_FATAL = ("cpu", "temperature")
"""Below a critical value: a run that uses all of its CPU time is healthy, and chips slow down by
themselves before heat harms them."""

Emit = Callable[[str, Mapping[str, object]], None]


class LimitEnforcer(Callback):
    """Compares readings of the machine with limits; one per rank, each for its own machine.

    A reading over a limit is a warning. Three in a row, or one critical value, request relief: unused
    memory is released, and after the next step the machine is measured again. If it is still over the
    limit, the next throttling step is requested: fewer workers, smaller micro-batches (once, if a
    value is critical), and at last the run saves and ends. A limit that is exceeded again soon after
    relief counts as still exceeded.

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
        self._limits, self._critical = _by_resource(limits), _by_resource(limits.critical)
        self._disk = {"disk": self._limits.pop("disk")} if "disk" in self._limits else {}
        """Reported once; empty: reported already."""
        self._monitor, self._emit = monitor, emit
        self._warnings, self._since_relief = 0, MEMORY_READINGS
        self._left, self._has_halved = Action.NOTHING, False
        self._kept: dict[str, float] | None = None
        """The limits that were exceeded, and have to be kept again; None: none was."""
        self._again: list[str] = []
        """Exceeded again soon after relief: what is measured between two steps does not count."""
        self._wait = math.inf
        """Steps until the machine is measured; infinite until the request is carried out."""

    def start(self, train_plan: TrainPlan) -> None:
        reading = self._monitor.read()
        for name in self._chosen:
            if getattr(reading, name) is None:
                text = f"limits.{name} cannot act: this machine reports no {name}"
                self._emit("warning", {"text": text})
        exceeded = _over(reading, self._limits)
        if "disk" in _over(reading, self._critical):
            self._ignore(["disk"], reading)
        exceeded += _over(reading, self._disk)
        if exceeded:
            self._use_critical_only(exceeded)
            self._emit("limit_exceeded_at_start", {"over": exceeded, **reading.facts()})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Check a new reading; after a throttling step, take one."""
        if self._kept is None:
            new = self._monitor.take()
            return Action.NOTHING if new is None else self._check(new)
        self._wait -= 1
        if self._wait > 0:
            return Action.NOTHING
        self._monitor.take()  # a reading from before the relief is out of date
        reading = self._monitor.read()
        over = _over(reading, self._kept) or _over(reading, self._critical) or self._again
        self._again = []
        self._emit("relieved", {"still_over": over, **reading.facts()})
        return self._next_step(over, reading) if over else self._close()

    def throttled(self, available: Action) -> None:
        self._left, self._wait = available, 1

    def end(self, outcome: Outcome) -> None:
        self._monitor.stop()

    def _check(self, reading: MachineReading) -> Action:
        self._since_relief += 1
        critical, over = _over(reading, self._critical), _over(reading, self._limits)
        if _over(reading, self._disk):
            self._disk = {}
            self._emit("disk_filling", {"over": ["disk"], **reading.facts()})
        self._warnings = self._warnings + 1 if over or critical else 0
        if self._warnings:
            facts = {"over": over or critical, "warnings": self._warnings, **reading.facts()}
            self._emit("limit_warning", facts)
        if "disk" in critical:
            return self._end_run(critical, reading)
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        self._kept, self._has_halved = (self._critical if critical else self._limits), False
        self._emit("throttled", {"critical": critical, "over": over, **reading.facts()})
        self._again = list(over or critical) if self._since_relief < MEMORY_READINGS else []
        self._wait = math.inf
        return Action.FREE_MEMORY

    def _next_step(self, over: Sequence[str], reading: MachineReading) -> Action:
        """Request what is left and helps; else end the run, or stop watching what is `over`."""
        critical = _over(reading, self._critical)
        for action, helps in _HELPS.items():
            again = action is Action.SMALLER_BATCH and self._has_halved and bool(critical)
            if action in self._left and helps.intersection(over) and not again:
                self._has_halved |= action is Action.SMALLER_BATCH
                self._wait = math.inf
                return action
        fatal = [name for name in over if name not in _NEVER_FATAL or name in critical]
        if fatal:
            return self._end_run(fatal, reading)
        self._ignore(over, reading)
        return self._close()

    def _end_run(self, over: Sequence[str], reading: MachineReading) -> Action:
        self._emit("pressure", {"over": over, **reading.facts()})
        self._kept = None
        return Action.LIMIT_EXCEEDED | Action.SAVE

    def _ignore(self, names: Sequence[str], reading: MachineReading) -> None:
        """Watch these no longer: nothing that a run does helps."""
        self._use_critical_only(names)
        self._critical = {n: limit for n, limit in self._critical.items() if n not in names}
        self._emit("limit_given_up", {"over": list(names), **reading.facts()})

    def _use_critical_only(self, names: Sequence[str]) -> None:
        self._limits = {n: limit for n, limit in self._limits.items() if n not in names}
        self._disk = {} if "disk" in names else self._disk

    def _close(self) -> Action:
        self._kept, self._warnings, self._since_relief = None, 0, 0
        return Action.NOTHING


def _by_resource(limits: Limits | Critical) -> dict[str, float]:
    # CPU use has no critical limit.
    values = {name: getattr(limits, name, None) for name in RESOURCES}
    return {name: limit for name, limit in values.items() if limit is not None}


def _over(reading: MachineReading, limits: Mapping[str, float]) -> list[str]:
    values = {name: getattr(reading, name) for name in limits}
    return [name for name, value in values.items() if value is not None and value > limits[name]]
