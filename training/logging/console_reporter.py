"""The console reporter: the moments of a run as text, and its outputs: plain lines, and log.txt."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, TextIO

from gearshift.training.callbacks.base import (
    Callback,
    EvalResult,
    Facts,
    Numbers,
    Outcome,
    RunInfo,
    Step,
    StepMetrics,
)
from gearshift.training.logging import console_text
from gearshift.training.logging.console_text import render_row
from gearshift.training.logging.encoding import amount, duration, printable, real, size
from gearshift.training.storage import Storage
from gearshift.training.train_plan import TrainPlan

Kind = Literal["head", "train", "best", "saved", "notice", "warning", "summary", "preview", "log"]
"""The subject of a text; "log" is for the log file only, "preview" for the others."""


class ConsoleOutput:
    def write(self, kind: Kind, text: str) -> None:
        """Add `text`, one line or more."""

    def draw(self, lines: Sequence[str]) -> None:
        """Show the progress instead of the last one, if this output can."""

    def close(self) -> None:
        """Restore the output as it was; nothing is written afterwards."""


def can_redraw(stream: TextIO, term: str | None) -> bool:
    """Whether `stream` is a terminal that can redraw a line; `term` is the variable TERM."""
    return is_terminal(stream) and term not in (None, "", "dumb", "unknown")


def is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


@contextmanager
def discarding(stream: TextIO) -> Iterator[None]:
    """Discard the rest of `stream` once it fails: its reader (`| head`) or terminal has gone."""
    try:
        yield
    except OSError:
        # Text in its buffer would fail once more when the interpreter exits, and change the exit
        # code. Source: Python, library reference, "Note on SIGPIPE".
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class PlainOutput(ConsoleOutput):
    """Plain lines for files, pipes and schedulers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, kind: Kind, text: str) -> None:
        if kind != "log":
            encoding = self._stream.encoding or "utf-8"
            # A file may have an encoding without × or the model's characters.
            text = printable(text).encode(encoding, "replace").decode(encoding)
            with discarding(self._stream):
                print(text, file=self._stream, flush=True)


class LogFileOutput(ConsoleOutput):
    """log.txt: all texts and events, in local time. Raises StorageError."""

    def __init__(self, storage: Storage) -> None:
        self._file = storage.open_lines("log.txt")

    def write(self, kind: Kind, text: str) -> None:
        if kind != "preview":
            time = datetime.now().isoformat(" ", timespec="seconds")
            for line in printable(text).splitlines():
                self._file.write(f"{time}  {line}".encode())

    def close(self) -> None:
        self._file.close()


_REDRAW_S = 0.25
PREVIEW_LINES = 5
_WIDTH = 98
"""Lines and characters of a preview on the console at most; the log has all of it."""
_BAR = 20
"""Characters of a progress bar."""


class Progress:
    """The step of a run, with its times, as lines of text.

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
        """Optimizer update number `step` is done, in `seconds` if they are known better."""
        now = self._now()
        if seconds is None:
            seconds = now - self._mark
        self._mark = now
        if self.step != self.train_plan.first_step:
            self._steps += step - self.step
            self._steps_s += seconds
        self.step = step

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start of this process's first step."""
        return self._now() - self._start

    @property
    def remaining_s(self) -> float | None:
        """Seconds to the last step; None: no step was measured yet, or the run has ended."""
        if not self._steps or self.has_ended or not self.train_plan.has_length:
            return None
        left = self.train_plan.end_step - self.step
        return self._steps_s / self._steps * left

    def position(self, step: int) -> str:
        """A step, of all of the run: ` 20/100`."""
        if not self.train_plan.has_length:
            return str(step)
        total = self.train_plan.end_step
        return f"{step:>{len(str(total))}}/{total}"

    def fit(self, facts: Facts) -> None:
        """The run has another length, by the facts of an event "fitted"."""
        self.train_plan = replace(self.train_plan, total_steps=facts["total_steps"])

    def line(self) -> str:
        """The newest logged step as a plain line."""
        assert self.last is not None
        texts = [self.position(self.last.step), *self._numbers(), self._eta]
        return render_row("step", "  ".join(texts))

    def lines(self) -> list[str]:
        """The live view: a bar with the step, the newest numbers, and the last event."""
        bar = "━" * round(_BAR * self.step / self.train_plan.end_step)
        where = f"step {self.position(self.step).strip()}"
        lines = [f"{bar:─<{_BAR}}  {where}  {duration(self.elapsed_s)} elapsed  {self._eta}"]
        lines.append("  ".join(map(str.strip, self._numbers())))
        if self.event is not None:
            lines.append(f"last  {self.event}")
        return lines

    @property
    def _eta(self) -> str:
        left = self.remaining_s
        return "ETA –" if left is None else f"ETA {duration(left)}"

    def _numbers(self) -> list[str]:
        """The newest logged numbers, and memory in use: `ram 63%`, `gpu 71%`."""
        line = self.last
        usage = [f"{k} {self.usage[k]:.0f}%" for k in ("ram", "gpu") if k in self.usage]
        if line is None:
            return ["waiting for the first logged step", *usage]
        texts = [f"loss {real(line.loss):>8}"]
        texts += [f"{name} {real(value):>8}" for name, value in line.parts.items()]
        texts += [f"lr {line.lr:.2e}", f"norm {real(line.grad_norm):>8}"]
        speed = f"{amount(line.units_per_s):>5} {self.train_plan.units}/s"
        if line.labelled != line.units and line.labelled_per_s is not None:
            speed += f" ({amount(line.labelled_per_s)} labelled)"
        memory = line.device_memory_bytes
        if memory is None:
            memory = line.host_memory_bytes
        texts += [speed, f"{size(memory):>9}"]
        if line.mfu is not None:
            texts.append(f"mfu {100 * line.mfu:4.1f}%")
        if line.skipped:
            texts.append(f"skipped {line.skipped}")
        return texts + usage


@dataclass
class ConsoleReporter(Callback):
    about: RunInfo
    outputs: Sequence[ConsoleOutput]
    now: Callable[[], float] = time.monotonic
    usage: Callable[[], Numbers] = dict
    """Gives the use of the machine in percent, by resource."""
    _draw_at: float = 0.0
    # Repeated at the end: the last lines are those that everyone reads.
    _advice: list[str] = field(default_factory=list)

    def start(self, train_plan: TrainPlan) -> None:
        self._progress = Progress(train_plan, self.now)
        self._write("head", "\n".join(console_text.render_header(self.about, train_plan)))

    def step(self, step: Step) -> None:
        self._progress.stepped(step.step)
        if self.now() >= self._draw_at:
            self._progress.usage = self.usage()
            self._draw_at = self.now() + _REDRAW_S
            for output in self.outputs:
                output.draw(self._progress.lines())

    def logged(self, line: StepMetrics) -> None:
        self._progress.last = line
        self._progress.usage = self.usage()
        self._write("train", self._progress.line())

    def evaluated(self, evaluation: EvalResult) -> None:
        metrics = "  ".join(f"{name} {real(v)}" for name, v in evaluation.metrics.items())
        position = self._progress.position(evaluation.step)
        text = f"{position}  {evaluation.split}  {metrics}  ({duration(evaluation.seconds)})"
        kind: Kind = "notice"
        if evaluation.is_best:
            kind = "best"
            text += "  ← best"
        self._write(kind, render_row("eval", text))

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        text = f"{self._progress.position(step)}  {folder.parent.name}/{folder.name}"
        self._write("saved", render_row("saved", text))

    def event(self, kind: str, facts: Facts) -> None:
        """Write a preview or an urgent event to all outputs, other events to the log only."""
        if kind == "preview":
            title = f"{facts['when']} training"
            lines = printable(str(facts["text"])).splitlines()
            self._write("log", "\n| ".join([title, *lines]))
            shown = [line[:_WIDTH] for line in lines if line.strip()]
            self._write("preview", "\n| ".join([title, *shown[:PREVIEW_LINES]]))
            return
        if kind == "fitted":
            self._progress.fit(facts)
        row = console_text.describe(kind, facts)
        if row is None:
            text = f"{kind}  {console_text.render_facts(facts)}".rstrip()
            self._write("log", render_row("event", text))
            return
        label = row[0]
        text = render_row(*row)
        self._write("warning" if label == console_text.WARNING else "notice", text)
        if label == "advice" or "fault" in facts:
            self._advice.append(text)

    def end(self, outcome: Outcome) -> None:
        """Write the summary, and close every output, also if one of them fails."""
        summary = console_text.render_summary(outcome)
        try:
            # Only the supervisor knows which rank failed first, and reports it.
            kind: Kind = "log" if outcome.status == "failed" else "summary"
            self._write(kind, "\n".join(summary + self._advice))
        finally:
            for output in self.outputs:
                output.close()

    def _write(self, kind: Kind, text: str) -> None:
        for output in self.outputs:
            output.write(kind, text)
