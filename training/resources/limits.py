"""Keeps a run from starving its machine: warns, asks for relief rung by rung, ends it at last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from training.callbacks.base import Action, Callback, Outcome, Step
from training.resources.monitor import RESOURCES
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from training.resources.monitor import Reading, ResourceMonitor
    from training.resources.settings import Limits

WARNINGS = 3
"""Readings over a limit, one after the other, that are as bad as a critical one."""
SETTLING_STEPS = 2
"""After so many steps with smaller micro-batches it is known what they take."""
REMEMBERED = 10
"""Readings after which a limit that is exceeded again is a new matter."""
_RUNGS: Mapping[Action, frozenset[str]] = {
    Action.FEWER_WORKERS: frozenset({"ram", "swap", "cpu"}),
    Action.SMALLER_BATCH: frozenset({"ram", "swap", "gpu"}),
}
"""What helps which resource, in this order; nothing that a run can do frees a disk."""
_NO_REASON_TO_END = ("cpu",)
"""A run that computes as much as it can is as it should be."""

Tell = Callable[[str, Mapping[str, object]], None]


class LimitEnforcer(Callback):
    """Compares readings of the machine with limits; one a rank, each for its own machine.

    A reading over a limit is a warning; one with all values under their limits starts the count
    anew. Three warnings in a row or one critical value ask for relief, after which the machine is
    measured again at once. Where it is still over what made it act, the next rung is asked for:
    fewer workers, smaller micro-batches (measured after two steps; once, where a value is
    critical), and at last the run saves and ends.

    Between two steps a machine may look calm that is not within one. So where a limit is exceeded
    again soon after relief, the next rung is taken whatever that measurement says.

    A limit that is exceeded before the first step cannot judge the run: that is said once, and from
    then on only the critical value of that resource counts. A disk over its critical value already
    is not watched: on a shared file system that is everyday. `tell` is given each event.
    """

    def __init__(self, limits: Limits, monitor: ResourceMonitor, tell: Tell) -> None:
        critical = limits.critical
        self._limits = _given(limits.ram, limits.swap, limits.gpu, limits.cpu, None)
        self._critical = _given(critical.ram, critical.swap, critical.gpu, None, critical.disk)
        self._disk: float | None = limits.disk
        """Said once; None: said already."""
        self._monitor = monitor
        self._tell = tell
        self._warnings = 0
        self._matter: _Matter | None = None
        self._since_relief = REMEMBERED

    def start(self, train_plan: TrainPlan) -> None:
        """Take the first reading and begin to watch."""
        reading = self._monitor.read()
        exceeded = _over(reading, self._limits)
        if "disk" in _over(reading, self._critical):
            self._give_up_on(["disk"], reading)
        elif _exceeds(reading.disk, self._disk):
            exceeded.append("disk")
        if exceeded:
            self._forget(exceeded)
            self._tell("limit_exceeded_at_start", {"over": exceeded, **reading.facts()})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Judge a reading, where there is a new one; after smaller micro-batches, take one."""
        if self._matter is not None and self._matter.settling:
            self._matter.settling -= 1
            return Action.NOTHING if self._matter.settling else self._settled()
        reading = self._monitor.take()
        return Action.NOTHING if reading is None else self._judge(reading)

    def relieved(self, left: Action) -> Action:
        """Measure again at once, where this rank was one that asked."""
        matter = self._matter
        if matter is None or matter.settling:
            return Action.NOTHING
        if matter.rung is Action.SMALLER_BATCH:
            matter.rung, matter.settling = Action.RELIEF, SETTLING_STEPS
            return Action.NOTHING
        reading = self._measure()
        over = matter.still_over(reading) or _over(reading, self._critical)
        self._tell("relieved", {"still_over": over, **reading.facts()})
        if matter.insists:
            matter.insists, over = False, over or matter.over
        if not over:
            self._close()
            return Action.NOTHING
        matter.rung = matter.next(over, left)
        return matter.rung or self._give_up(over, reading)

    def end(self, outcome: Outcome) -> None:
        """Stop watching."""
        self._monitor.stop()

    def _judge(self, reading: Reading) -> Action:
        self._since_relief += 1
        critical = _over(reading, self._critical)
        over = _over(reading, self._limits)
        if _exceeds(reading.disk, self._disk):
            self._disk = None
            self._tell("disk_filling", {"over": ["disk"], **reading.facts()})
        self._warnings = self._warnings + 1 if over or critical else 0
        if self._warnings:
            facts = {"over": over or critical, "warnings": self._warnings, **reading.facts()}
            self._tell("limit_warning", facts)
        if "disk" in critical:
            return self._give_up(critical, reading)
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        limits = self._critical if critical else self._limits
        insists = self._since_relief < REMEMBERED
        self._matter = _Matter(limits, over or critical, bool(critical), insists)
        self._tell("throttled", {"critical": critical, "over": over, **reading.facts()})
        return Action.RELIEF

    def _settled(self) -> Action:
        assert self._matter is not None
        reading = self._measure()
        over = self._matter.still_over(reading)
        self._tell("settled", {"still_over": over, **reading.facts()})
        if over:
            return Action.RELIEF
        self._close()
        return Action.NOTHING

    def _give_up(self, over: Sequence[str], reading: Reading) -> Action:
        reasons = [name for name in over if name not in _NO_REASON_TO_END]
        if not reasons:
            self._give_up_on(over, reading)
            self._close()
            return Action.NOTHING
        limits = self._matter.limits if self._matter else self._critical
        self._tell("pressure", {"over": reasons, "limits": dict(limits), **reading.facts()})
        self._matter = None
        return Action.PRESSURE | Action.SAVE

    def _give_up_on(self, names: Sequence[str], reading: Reading) -> None:
        """Watch these no longer: nothing that a run does helps."""
        self._forget(names)
        self._critical = _without(self._critical, names)
        self._tell("limit_given_up", {"over": list(names), **reading.facts()})

    def _forget(self, names: Sequence[str]) -> None:
        """From now on only the critical values of these count."""
        self._limits = _without(self._limits, names)
        self._disk = None if "disk" in names else self._disk

    def _measure(self) -> Reading:
        self._monitor.take()  # A reading from before the relief says nothing any more.
        return self._monitor.read()

    def _close(self) -> None:
        self._matter = None
        self._warnings = self._since_relief = 0


class _Matter:
    """A limit that was exceeded, from the first ask for relief until all is well or at its end."""

    def __init__(
        self, limits: Mapping[str, float], over: Sequence[str], is_critical: bool, insists: bool
    ) -> None:
        self.limits = limits
        """What made the run act, and has to be kept again."""
        self.over = list(over)
        self.insists = insists
        """The last relief did not last: a rung is taken without looking."""
        self.rung = Action.RELIEF
        """What was asked for last."""
        self.settling = 0
        """Steps until the machine is measured."""
        self._is_critical = is_critical
        self._has_shrunk = False

    def still_over(self, reading: Reading) -> list[str]:
        """What exceeds the limits that made the run act."""
        return _over(reading, self.limits)

    def next(self, over: Sequence[str], left: Action) -> Action:
        """The next rung that helps what is `over`, of those `left`; NOTHING: there is none."""
        for rung, helps in _RUNGS.items():
            again = rung is Action.SMALLER_BATCH and self._has_shrunk and self._is_critical
            if rung in left and helps.intersection(over) and not again:
                self._has_shrunk |= rung is Action.SMALLER_BATCH
                return rung
        return Action.NOTHING


def _given(
    ram: float | None,
    swap: float | None,
    gpu: float | None,
    cpu: float | None,
    disk: float | None,
) -> dict[str, float]:
    limits = zip(RESOURCES, (ram, swap, gpu, cpu, disk), strict=True)
    return {name: limit for name, limit in limits if limit is not None}


def _without(limits: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: limit for name, limit in limits.items() if name not in names}


def _over(reading: Reading, limits: Mapping[str, float]) -> list[str]:
    """The resources whose use is above their limit."""
    values = reading.percents()
    return [name for name, limit in limits.items() if _exceeds(values.get(name), limit)]


def _exceeds(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit
