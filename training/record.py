"""The account of a run: times, units and samples, put together into logged lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from training import throughput
from training.callbacks.base import StepMetrics
from training.resources import memory
from training.timing import Timing

if TYPE_CHECKING:
    from engines.base import World
    from training.callbacks.base import Step, TrainPlan


class Record:
    """Adds up the steps since the last logged one.

    The first and the last step are logged, and every `log_every`-th. One that was skipped has no
    loss to show, so the next one is logged in its place. What a run logs does not depend on where
    another process took over.
    """

    def __init__(
        self,
        train_plan: TrainPlan,
        log_every: int,
        precision: str,
        is_timed: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ):
        """`is_timed`: each step is timed by itself, too."""
        self._now = now
        self._timing = Timing(train_plan, now) if is_timed else None
        self.units = 0
        """Of all steps so far."""
        self._budget = train_plan
        self._every = log_every
        self._precision = precision
        self._shown: Step | None = None
        self._owed = False
        self._samples_per_s: float | None = None
        self._timed = (0, 0.0)
        self._begin_line()

    def facts(self) -> dict[str, Any]:
        """What `resume` needs, as plain numbers."""
        return {"units": self.units, "owed": self._owed, "skipped": self._line_skipped}

    def resume(self, facts: Mapping[str, Any]) -> None:
        """Go on from what another process wrote down."""
        self.units, self._owed = facts["units"], facts.get("owed", False)
        self._line_skipped = facts.get("skipped", 0)

    def start(self, device: torch.device) -> None:
        """The first step begins."""
        self._since = self._now()
        if self._timing:
            self._timing.start(device)

    def add(self, step: Step) -> bool:
        """Take in a step; true where a line is due. The same on every rank."""
        if self._timing:
            self._timing.lap()
        self.units += step.units
        self._line_units += step.units
        self._line_steps += 1
        self._line_skipped += step.skipped
        self._line_data_s += step.data_s
        self._owed = self._owed or step.step == 1 or step.step % self._every == 0
        # fp16 skips an update with a sound loss, while it looks for a scale of the loss.
        if not step.skipped or step.loss_scale is not None:
            self._shown = step
            return self._owed
        return False

    @property
    def is_behind(self) -> bool:
        """Whether there are steps that no line has shown."""
        return self._line_steps > 0 and self._shown is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is no part of a step."""
        began = self._now()
        yield
        paused = self._now() - began
        self._since += paused
        if self._timing:
            self._timing.leave_out(paused)

    def line(self, world: World) -> StepMetrics:
        """The newest step with a loss, and means over all since the last line. Collective."""
        step = self._shown
        assert step is not None
        names = sorted(step.parts)
        own = torch.stack([step.loss, *(step.parts[name].to(step.loss) for name in names)])
        loss, *parts = world.sum(own).tolist()  # The host waits for the device here.
        seconds = self._now() - self._since
        steps = self._line_steps
        samples_per_s = steps * self._budget.global_batch / seconds
        self._remember(steps, seconds)
        line = StepMetrics(
            step=step.step,
            epoch=self._budget.epoch(step.step),
            samples=self._budget.samples(step.step),
            units=self.units,
            loss=loss / world.size,
            parts={
                name: part / max(step.units, 1) for name, part in zip(names, parts, strict=True)
            },
            grad_norm=step.norm.item(),
            lr=step.lr,
            skipped=self._line_skipped,
            loss_scale=step.loss_scale,
            step_time_s=seconds / steps,
            data_time_s=self._line_data_s / steps,
            samples_per_s=samples_per_s,
            units_per_s=self._line_units / seconds,
            mfu=throughput.mfu(
                self._budget.flops_per_sample,
                samples_per_s,
                world.device,
                self._precision,
                world.size,
            ),
            device_memory_bytes=memory.device_bytes(world.device),
            host_memory_bytes=memory.host_bytes(),
        )
        self._begin_line()
        return line

    @property
    def samples_per_s(self) -> float | None:
        """Over all steps but those of the first line, where there are any; None: nothing logged."""
        return self._samples_per_s

    @property
    def timing(self) -> Mapping[str, float] | None:
        """How long single steps took; None: nobody asked."""
        return self._timing.summary() if self._timing else None

    def _begin_line(self) -> None:
        self._line_steps = self._line_units = self._line_skipped = 0
        self._line_data_s = 0.0
        self._owed = False
        self._shown = None
        self._since = self._now()

    def _remember(self, steps: int, seconds: float) -> None:
        if self._samples_per_s is not None:
            # The first step compiles, allocates and waits for the first batch.
            steps, seconds = self._timed[0] + steps, self._timed[1] + seconds
            self._timed = steps, seconds
        self._samples_per_s = steps * self._budget.global_batch / seconds
