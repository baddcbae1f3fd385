"""Ranks that keep all others waiting: found by their own times, and named with their host."""

from __future__ import annotations

import socket
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from training.resources.forward_timing import ForwardTimer

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, World
    from training.callbacks.base import StepMetrics
    from training.callbacks.callback_list import CallbackList
    from training.settings import Log

BLOCK_S = 2.0
"""Training that is judged as one, at least; so much of a hiccup is averaged away."""
BLOCK_STEPS = 4
BLOCKS = 5
SLOW_BLOCKS = 4
"""Of the last BLOCKS, a rank that is slow in so many is named."""
LEAST_SHARE = 0.1
"""Of a step: what a rank takes more than others counts only if it is more than that."""
WHATS = ("step", "data")
"""Computing its own share of a step; waiting for its batches."""
UNIT_S = 1e-9
"""In which times are added up, exactly."""


@dataclass(frozen=True)
class Straggler:
    """A rank that is slow in `what`; the seconds are of a step, means over some of them."""

    rank: int
    host: str
    what: str
    seconds: float
    median_seconds: float
    """Of the other ranks."""
    at: int
    """The logged step at which it was told."""


@dataclass(frozen=True)
class _Noted:
    """What a rank took since the line before; times in units of UNIT_S."""

    step: int
    steps: int
    own: int
    data: int
    whole: int


class Stragglers:
    """Compares what each rank took for itself, at logged steps.

    In training that goes in step all ranks take equally long, whoever is slow. So each tells what
    it took alone: computing its forward passes, and waiting for its own batches. All ranks are
    told all times, and come to the same end. The times of a logged line travel with what ranks
    tell each other anyway before the next step.
    """

    def __init__(self, log: Log, audience: CallbackList, block_s: float = BLOCK_S):
        """`log.stragglers`: how many times the others' time is slow; None: nobody looks."""
        self._ratio = log.stragglers
        self._audience = audience
        self._block_s = block_s
        self.own = ForwardTimer()
        self._is_on = False
        self._told: dict[tuple[int, str], Straggler] = {}
        self._times: list[int] = []
        self._noted: _Noted | None = None
        self._slow: deque[set[tuple[int, str]]] = deque(maxlen=BLOCKS)

    def start(self, engine: Engine, module: Module, step: int) -> None:
        """Look from the step after `step` on. Collective."""
        self._world, self._step = engine.world, step
        self._is_on = self._ratio is not None and self._world.size > 1
        if self._is_on:
            self.own.start(engine, module)
            self._hosts = _hosts(self._world)
        self._begin_block()
        self._is_first = True

    def note(self, line: StepMetrics) -> None:
        """Keep what this rank took for itself since the line before."""
        if not self._is_on:
            return
        steps, self._step = line.step - self._step, line.step
        own = self.own.take() or 0.0
        if self._is_first:  # compiles, allocates, waits for the first batch
            self._is_first = False
            return
        seconds = (own, line.data_time_s, line.step_time_s)
        self._noted = _Noted(line.step, steps, *(round(one * steps / UNIT_S) for one in seconds))

    def tell(self) -> Sequence[int]:
        """What is to be added up over ranks before the next step; nothing where no line was new.

        Times of all ranks in units of UNIT_S: computing [rank], data [rank], and whole steps by
        the clock of rank 0, so that all ranks end a block at one step.
        """
        if self._noted is None:
            return []
        rank, size = self._world.rank, self._world.size
        times = [0] * (len(WHATS) * size + 1)
        times[rank], times[size + rank] = self._noted.own, self._noted.data
        if rank == 0:
            times[-1] = self._noted.whole
        return times

    def hear(self, times: Sequence[int]) -> None:
        """Given what `tell` came to, tell of ranks that are slow now, or no longer."""
        if self._noted is None:
            return
        noted, self._noted = self._noted, None
        self._steps += noted.steps
        self._times = [a + b for a, b in zip(self._times, times, strict=True)]
        if self._steps >= BLOCK_STEPS and self._times[-1] * UNIT_S >= self._block_s:
            self._judge(noted.step)
            self._begin_block()

    def _begin_block(self) -> None:
        self._steps, self._times = 0, [0] * (len(WHATS) * self._world.size + 1)

    def _judge(self, at: int) -> None:
        means = [one * UNIT_S / self._steps for one in self._times]
        step_s, size = means[-1], self._world.size
        found = {
            (one.rank, one.what): one
            for number, what in enumerate(WHATS)
            for one in self._slower(means[number * size : (number + 1) * size], what, step_s, at)
        }
        self._slow.append(set(found))
        for key, straggler in found.items():
            if key not in self._told and self._count(key) >= SLOW_BLOCKS:
                self._told[key] = straggler
                self._audience.event("straggler", asdict(straggler))
        for key in [k for k in self._told if self._count(k) <= BLOCKS - SLOW_BLOCKS]:
            gone = self._told.pop(key)
            facts = {"rank": gone.rank, "host": gone.host, "what": gone.what, "at": at}
            self._audience.event("straggler_gone", facts)

    def _slower(
        self, times: Sequence[float], what: str, step_s: float, at: int
    ) -> Iterator[Straggler]:
        """The ranks whose own time is far above that of the others."""
        assert self._ratio is not None
        ordered = sorted(times)
        for rank, own in enumerate(times):
            others = median_without(ordered, own)
            if own > self._ratio * others and own - others > LEAST_SHARE * step_s:
                yield Straggler(rank, self._hosts[rank], what, own, others, at)

    def _count(self, key: tuple[int, str]) -> int:
        return sum(key in block for block in self._slow)


def median_without(ordered: Sequence[float], value: float) -> float:
    """The median of `ordered` after one `value`, which is in it, was taken out."""
    at, left = bisect_left(ordered, value), len(ordered) - 1

    def place(number: int) -> float:
        return ordered[number if number < at else number + 1]

    return (place((left - 1) // 2) + place(left // 2)) / 2


def _hosts(world: World) -> list[str]:
    """The host of each rank. Collective."""
    name = socket.gethostname().encode()
    names = [world.broadcast(name, rank) for rank in range(world.size)]
    return [name.decode(errors="replace") for name in names]
