"""Keeps a run from starving its machine: warns, asks for relief, and at last ends the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from training.hooks import Ask, Budget, Hook, Outcome, Step

if TYPE_CHECKING:
    from training.monitor import Monitor, Reading
    from training.settings import Limits

WARNINGS = 3
"""Readings over a limit, one after the other, that are as bad as a critical one."""

Tell = Callable[[str, Mapping[str, object]], None]


class Governor(Hook):
    """Compares readings of the machine with limits; one a rank, each for its own machine.

    A reading over a limit is a warning; one with all values under their limits starts the count
    anew. Three warnings in a row or one critical value ask for relief, after which the machine is
    measured again at once. If it is then still over what made it act, the run saves and ends.

    A limit that is exceeded before the first step cannot judge the run: that is said once, and from
    then on only the critical value of that resource counts. `tell` is given each event.
    """

    def __init__(self, limits: Limits, monitor: Monitor, tell: Tell) -> None:
        self._limits: dict[str, float] = {
            "ram": limits.ram,
            "gpu": limits.gpu,
            "swap": limits.swap,
        }
        critical = limits.critical
        self._critical = {"ram": critical.ram, "gpu": critical.gpu, "swap": critical.swap}
        self._monitor = monitor
        self._tell = tell
        self._warnings = 0
        self._judged_by: Mapping[str, float] | None = None
        """The limits that made it ask for relief, until the answer is measured."""

    def start(self, budget: Budget) -> None:
        """Take the first reading and begin to watch."""
        reading = self._monitor.read()
        exceeded = _over(reading, self._limits)
        if exceeded:
            self._limits = {k: v for k, v in self._limits.items() if k not in exceeded}
            self._tell("limit_exceeded_at_start", {"over": exceeded, **reading.facts()})
        self._monitor.start()

    def step(self, step: Step) -> Ask:
        """Judge a reading, where there is a new one."""
        reading = self._monitor.take()
        return Ask.NOTHING if reading is None else self._judge(reading)

    def relieved(self) -> Ask:
        """Measure again at once, where this rank was the one that asked for relief."""
        if self._judged_by is None:
            return Ask.NOTHING
        limits, self._judged_by = self._judged_by, None
        self._warnings = 0
        self._monitor.take()  # A reading from before the relief says nothing any more.
        reading = self._monitor.read()
        over = _over(reading, limits) or _over(reading, self._critical)
        self._tell("relieved", {"still_over": over, **reading.facts()})
        if not over:
            return Ask.NOTHING
        self._tell("pressure", {"over": over, "limits": dict(limits), **reading.facts()})
        return Ask.PRESSURE | Ask.SAVE

    def end(self, outcome: Outcome) -> None:
        """Stop watching."""
        self._monitor.stop()

    def _judge(self, reading: Reading) -> Ask:
        critical = _over(reading, self._critical)
        over = _over(reading, self._limits)
        self._warnings = self._warnings + 1 if over or critical else 0
        if self._warnings:
            facts = {"over": over or critical, "warnings": self._warnings, **reading.facts()}
            self._tell("limit_warning", facts)
        if critical or self._warnings >= WARNINGS:
            self._judged_by = self._critical if critical else self._limits
            self._tell("throttled", {"critical": critical, "over": over, **reading.facts()})
            return Ask.RELIEF
        return Ask.NOTHING


def _over(reading: Reading, limits: Mapping[str, float]) -> list[str]:
    """The resources whose use is above their limit."""
    values = {"ram": reading.ram, "gpu": reading.gpu, "swap": reading.swap}
    return [k for k, limit in limits.items() if (value := values[k]) is not None and value > limit]
