"""Resource limits: warns, requests throttling step by step, and ends the run as a last resort."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, Outcome, Step
from training.resources.monitor import RESOURCES
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from training.resources.monitor import MachineReading, ResourceMonitor
    from training.settings import Critical, Limits

WARNINGS = 3
"""Readings in a row over a limit that count as a critical one."""
SETTLING_STEPS = 2
"""Steps with smaller micro-batches before their memory is measured."""
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

    A reading over a limit is a warning; a reading with all values under their limits resets the
    count. Three warnings in a row, or one critical value, request relief, after which the machine
    is measured again at once. If it is still over the limit, the next throttling step is requested:
    fewer workers, smaller micro-batches (measured after two steps; once, if a value is critical),
    and at last the run saves and ends.

    Between two steps a machine may look calm that is not calm within one. So if a limit is exceeded
    again soon after relief, the next step is requested whatever that measurement shows.

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
        self._disk = self._limits.pop("disk", None)
        """Reported once; None: reported already."""
        self._monitor, self._emit = monitor, emit
        self._warnings, self._since_relief = 0, MEMORY_READINGS
        self._incident: _Incident | None = None

    def start(self, train_plan: TrainPlan) -> None:
        reading = self._monitor.read()
        for name in self._chosen:
            if getattr(reading, name) is None:
                text = f"limits.{name} cannot act: this machine reports no {name}"
                self._emit("warning", {"text": text})
        exceeded = _over(reading, self._limits)
        if "disk" in _over(reading, self._critical):
            self._stop_watching(["disk"], reading)
        elif self._is_disk_full(reading):
            exceeded.append("disk")
        if exceeded:
            self._use_critical_only(exceeded)
            self._emit("limit_exceeded_at_start", {"over": exceeded, **reading.facts()})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Check a new reading; after smaller micro-batches, take one."""
        incident = self._incident
        if incident is None:
            reading = self._monitor.take()
            return Action.NOTHING if reading is None else self._check(reading)
        incident.settling -= 1
        if incident.settling != 0:  # below: ranks act on its request a step later
            return Action.NOTHING
        reading = self._measure()
        over = _over(reading, incident.limits)
        self._emit("settled", {"still_over": over, **reading.facts()})
        return Action.FREE_MEMORY if over else self._close()

    def throttled(self, available: Action) -> Action:
        """Measure again at once, if this rank requested relief."""
        incident = self._incident
        if incident is None or incident.settling > 0:
            return Action.NOTHING
        if incident.requested is Action.SMALLER_BATCH:
            incident.requested, incident.settling = Action.FREE_MEMORY, SETTLING_STEPS
            return Action.NOTHING
        reading = self._measure()
        over = _over(reading, incident.limits) or _over(reading, self._critical)
        self._emit("relieved", {"still_over": over, **reading.facts()})
        if incident.is_repeated:
            incident.is_repeated, over = False, over or incident.over
        if not over:
            return self._close()
        incident.requested = incident.next_step(over, available)
        return incident.requested or self._give_up(over, reading, incident.limits)

    def end(self, outcome: Outcome) -> None:
        self._monitor.stop()

    def _check(self, reading: MachineReading) -> Action:
        self._since_relief += 1
        critical, over = _over(reading, self._critical), _over(reading, self._limits)
        if self._is_disk_full(reading):
            self._disk = None
            self._emit("disk_filling", {"over": ["disk"], **reading.facts()})
        self._warnings = self._warnings + 1 if over or critical else 0
        if self._warnings:
            facts = {"over": over or critical, "warnings": self._warnings, **reading.facts()}
            self._emit("limit_warning", facts)
        if "disk" in critical:
            return self._give_up(critical, reading, self._critical)
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        limits = self._critical if critical else self._limits
        is_repeated = self._since_relief < MEMORY_READINGS
        self._incident = _Incident(limits, over or critical, bool(critical), is_repeated)
        self._emit("throttled", {"critical": critical, "over": over, **reading.facts()})
        return Action.FREE_MEMORY

    def _give_up(self, over: Sequence[str], reading: MachineReading, limits: Mapping[str, float]) -> Action:
        critical = _over(reading, self._critical)
        fatal = [name for name in over if name not in _NEVER_FATAL or name in critical]
        if not fatal:
            self._stop_watching(over, reading)
            return self._close()
        self._emit("pressure", {"over": fatal, "limits": dict(limits), **reading.facts()})
        self._incident = None
        return Action.LIMIT_EXCEEDED | Action.SAVE

    def _stop_watching(self, names: Sequence[str], reading: MachineReading) -> None:
        """Ignore these from now on: nothing that a run does helps."""
        self._use_critical_only(names)
        self._critical = {n: limit for n, limit in self._critical.items() if n not in names}
        self._emit("limit_given_up", {"over": list(names), **reading.facts()})

    def _use_critical_only(self, names: Sequence[str]) -> None:
        self._limits = {n: limit for n, limit in self._limits.items() if n not in names}
        self._disk = None if "disk" in names else self._disk

    def _is_disk_full(self, reading: MachineReading) -> bool:
        return self._disk is not None and bool(_over(reading, {"disk": self._disk}))

    def _measure(self) -> MachineReading:
        self._monitor.take()  # A reading from before the relief is out of date.
        return self._monitor.read()

    def _close(self) -> Action:
        self._incident = None
        self._warnings = self._since_relief = 0
        return Action.NOTHING


@dataclass
class _Incident:
    """An exceeded limit, from the first request for relief until it is kept again or given up."""

    limits: Mapping[str, float]
    """The limits that were exceeded, and have to be kept again."""
    over: list[str]
    is_critical: bool
    is_repeated: bool
    """The last relief did not last: request a throttling step without measuring first."""
    requested: Action = Action.FREE_MEMORY
    """The last request."""
    settling: int = 0
    """Steps until the machine is measured; below 1: it is not."""
    has_halved: bool = False

    def next_step(self, over: Sequence[str], left: Action) -> Action:
        """The next throttling step in `left` that helps what is `over`; NOTHING: there is none."""
        for step, helps in _HELPS.items():
            again = step is Action.SMALLER_BATCH and self.has_halved and self.is_critical
            if step in left and helps.intersection(over) and not again:
                self.has_halved |= step is Action.SMALLER_BATCH
                return step
        return Action.NOTHING


def _by_resource(limits: Limits | Critical) -> dict[str, float]:
    # CPU use has no critical limit.
    values = {name: getattr(limits, name, None) for name in RESOURCES}
    return {name: limit for name, limit in values.items() if limit is not None}


def _over(reading: MachineReading, limits: Mapping[str, float]) -> list[str]:
    # A run may fill what others leave of a GPU: a step that does not fit is repeated with a smaller
    # micro-batch.
    values = {name: getattr(reading, name) for name in limits}
    return [name for name, value in values.items() if value is not None and value > limits[name]]
