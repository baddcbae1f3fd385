"""The console reporter: turns the moments of a run into text for one or several outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
from gearshift.training.logging.outputs import ConsoleOutput, Kind
from gearshift.training.logging.printable import printable
from gearshift.training.logging.progress import Progress
from gearshift.training.logging.quantities import duration, real
from gearshift.training.train_plan import TrainPlan

_REDRAW_S = 0.25
PREVIEW_LINES = 5
_WIDTH = 100
"""Of a longer text on the console; the log has all of it."""
_KINDS: Mapping[str, Kind] = {"resumed": "head", console_text.WARNING: "warning"}


class ConsoleReporter(Callback):
    _progress: Progress

    def __init__(
        self,
        about: RunInfo,
        outputs: Sequence[ConsoleOutput],
        now: Callable[[], float] = time.monotonic,
        usage: Callable[[], Numbers] = dict,
    ) -> None:
        """`usage` gives the use of the machine in percent, by resource."""
        self._about = about
        self._outputs = outputs
        self._now = now
        self._usage = usage
        self._draw_at = now()
        self._advice: list[
            str
        ] = []  # Repeated at the end: the last lines are those that everyone reads

    def start(self, train_plan: TrainPlan) -> None:
        self._progress = Progress(train_plan, self._now)
        self._write("head", "\n".join(console_text.render_header(self._about, train_plan)))

    def step(self, step: Step) -> None:
        self._progress.stepped(step.step)
        if self._now() >= self._draw_at:
            self._progress.usage, self._draw_at = self._usage(), self._now() + _REDRAW_S
            for output in self._outputs:
                output.draw(self._progress)

    def logged(self, line: StepMetrics) -> None:
        self._progress.last, self._progress.usage = line, self._usage()
        self._write("train", self._progress.line())

    def evaluated(self, evaluation: EvalResult) -> None:
        metrics = "  ".join(f"{name} {real(value)}" for name, value in evaluation.metrics.items())
        position = self._progress.position(evaluation.step)
        best = "  ← best" if evaluation.is_best else ""
        text = f"{position}  {evaluation.split}  {metrics}  ({duration(evaluation.seconds)}){best}"
        self._write("best" if best else "notice", render_row("eval", text))

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        text = f"{self._progress.position(step)}  {folder.parent.name}/{folder.name}"
        self._write("saved", render_row("saved", text))

    def event(self, kind: str, facts: Facts) -> None:
        """Write a preview or an urgent event to all outputs, other events to the log only."""
        if kind == "preview":
            title = f"{facts['when']} training"
            lines = printable(str(facts["text"])).splitlines()
            self._write("log", "\n| ".join([title, *lines]))
            self._write("preview", "\n| ".join([title, *_shortened(lines)]))
        elif (line := console_text.describe(kind, facts)) is not None:
            label = line[0]
            text = render_row(*line)
            self._write(_KINDS.get(label, "notice"), text)
            self._advice += [text] if label == "advice" or "fault" in facts else []
        else:
            self._write(
                "log", render_row("event", f"{kind}  {console_text.render_facts(facts)}".rstrip())
            )

    def end(self, outcome: Outcome) -> None:
        """Write the summary, and close every output, also if one of them fails."""
        summary = console_text.render_summary(outcome, self._about.predicted_memory_bytes)
        try:
            # Only the supervisor knows which rank failed first, and reports it.
            kind: Kind = "log" if outcome.status == "failed" else "summary"
            self._write(kind, "\n".join(summary + self._advice))
        finally:
            for output in self._outputs:
                output.close()

    def _write(self, kind: Kind, text: str) -> None:
        for output in self._outputs:
            output.write(kind, text)


def _shortened(lines: Sequence[str]) -> list[str]:
    """At most PREVIEW_LINES of `lines`, none of them empty, with a word about the rest."""
    cut = [
        text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…" for text in lines if text.strip()
    ]
    if len(cut) > PREVIEW_LINES:
        cut[PREVIEW_LINES - 1 :] = [f"… {len(cut) - PREVIEW_LINES + 1} more lines in log.txt"]
    return cut
