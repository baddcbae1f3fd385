"""Progress of a run: its step and newest numbers, and the time to the end; as a line and as a live view."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from gearshift.training.callbacks.base import Numbers, StepMetrics
from gearshift.training.logging.console_text import render_row
from gearshift.training.logging.printable import printable
from gearshift.training.logging.quantities import amount, duration, real, size
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_NARROW = 60  # Columns below which the bar and the elapsed time are left out


class Progress:
    """The step of a run, with its times; rich renders it as a bar and the newest numbers.

    The remaining time follows from the mean step so far, with evaluations and saves between steps.
    The first step is left out, because it compiles and warms up.
    """

    def __init__(self, train_plan: TrainPlan, now: Callable[[], float] = time.monotonic) -> None:
        self.train_plan = train_plan
        self._now = now
        self._start = self._mark = now()
        self.step = train_plan.first_step
        # Steps that were measured, and their seconds
        self._steps = 0
        self._steps_s = 0.0
        self.last: StepMetrics | None = None
        self.usage: Numbers = {}
        """Use of the machine in percent, by resource."""
        self.event: str | None = None
        """The last event; None: there was none, or none is shown."""
        self.has_ended = False

    def stepped(self, step: int, seconds: float | None = None) -> None:
        """Optimizer update number `step` is done; `seconds` since the call before, if known better."""
        before = self._mark
        self._mark = self._now()
        if self.step != self.train_plan.first_step:
            self._steps += step - self.step
            self._steps_s += self._mark - before if seconds is None else seconds
        self.step = step

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of this process's first step."""
        return self._now() - self._start

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step; None: no step was measured yet, or the run has ended."""
        left = self.train_plan.end_step - self.step
        return self._steps_s / self._steps * left if self._steps and not self.has_ended else None

    def position(self, step: int) -> str:
        """A step, of all of the run: ` 20/100`."""
        total = self.train_plan.end_step
        return f"{step:>{len(str(total))}}/{total}"

    def line(self) -> str:
        """The newest logged step as a plain line."""
        assert self.last is not None
        texts = [self.position(self.last.step), *self._numbers(), self._eta]
        return render_row("step", "  ".join(texts))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """No line wraps."""
        from rich.progress_bar import ProgressBar  # for a terminal only
        from rich.table import Table
        from rich.text import Text

        text = partial(Text, no_wrap=True, overflow="ellipsis")
        total = self.train_plan.end_step
        where = f"step {self.step}/{total}"
        if options.max_width < _NARROW:
            yield text(f"{where}  {self._eta}")
        else:
            grid = Table.grid(padding=(0, 1))
            width = max(options.max_width - 60, 10)
            times = text(f"{where}  {duration(self.elapsed_s)} elapsed  {self._eta}")
            grid.add_row(ProgressBar(total, self.step, width), times)
            yield grid
        yield text("  ".join(map(str.strip, self._numbers())))
        if self.event is not None:
            yield text(f"last  {printable(self.event)}", style="dim")

    @property
    def _eta(self) -> str:
        left = self.remaining_s
        return f"ETA {'–' if left is None else duration(left)}"

    def _numbers(self) -> list[str]:
        """The newest logged numbers, and memory in use: `ram 63%`, `gpu 71%`."""
        line = self.last
        usage = [f"{k} {self.usage[k]:.0f}%" for k in ("ram", "gpu") if k in self.usage]
        if line is None:
            return ["waiting for the first logged step", *usage]
        memory = line.device_memory_bytes
        texts = [
            f"loss {real(line.loss):>8}",
            *(f"{name} {real(value):>8}" for name, value in line.parts.items()),
            f"lr {line.lr:.2e}",
            f"norm {real(line.grad_norm):>8}",
            f"{amount(line.units_per_s):>5} {self.train_plan.units}/s",
            f"{size(line.host_memory_bytes if memory is None else memory):>9}",
        ]
        if line.labelled != line.units and line.labelled_per_s is not None:
            texts[-2] += f" ({amount(line.labelled_per_s)} labelled)"
        if line.mfu is not None:
            texts.append(f"mfu {100 * line.mfu:4.1f}%")
        if line.skipped:
            texts.append(f"skipped {line.skipped}")
        return texts + usage
