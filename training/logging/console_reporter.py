"""The console reporter: turns the moments of a run into text for one or several outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from training.callbacks.base import Callback, EvalResult, Facts, Numbers, Outcome, RunInfo, Step, StepMetrics
from training.logging import console_text
from training.logging.outputs import ConsoleOutput, Kind
from training.logging.progress import Progress
from training.storage import StorageError
from training.train_plan import TrainPlan

_REDRAW_S = 0.25


class ConsoleReporter(Callback):
    _train_plan: TrainPlan
    _progress: Progress | None = None

    def __init__(
        self,
        about: RunInfo,
        outputs: Sequence[ConsoleOutput],
        now: Callable[[], float] = time.monotonic,
        usage: Callable[[], Numbers] = dict,
    ) -> None:
        self._about, self._outputs, self._now, self._usage = about, outputs, now, usage
        self._live = [output for output in outputs if output.is_live]
        self._draw_at, self._drawn_step = now(), 0
        self._advice: list[str] = []  # Repeated at the end: the last lines are those that everyone reads

    def start(self, train_plan: TrainPlan) -> None:
        self._train_plan, self._progress = train_plan, Progress(train_plan, self._now)
        self._drawn_step = train_plan.first_step
        self._write("head", "\n".join(console_text.render_header(self._about, train_plan)))

    def step(self, step: Step) -> None:
        assert self._progress is not None
        self._progress.stepped(step.step)
        if self._live and self._now() >= self._draw_at:
            self._draw()

    def logged(self, line: StepMetrics) -> None:
        assert self._progress is not None
        self._progress.last = line
        position, usage = self._progress.position(), console_text.render_usage(self._usage())
        self._write("train", console_text.render_step(line, position, self._train_plan.units, usage))

    def evaluated(self, evaluation: EvalResult) -> None:
        text = console_text.render_evaluation(evaluation, self._train_plan.end_step)
        self._write("best" if evaluation.is_best else "evaluated", text)

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        name = f"{folder.parent.name}/{folder.name}"
        self._write("saved", console_text.render_saved(name, step, self._train_plan.end_step))

    def event(self, kind: str, facts: Facts) -> None:
        """Write a preview or an urgent event to all outputs, other events to the log only."""
        if kind == "preview":
            for output in self._outputs:
                output.write_block(f"{facts['when']} training", str(facts["text"]))
        elif (line := console_text.describe(kind, facts)) is not None:
            label, text = line[0], console_text.render_row(*line)
            kinds: Mapping[str, Kind] = {"resumed": "head", console_text.WARNING: "warning"}
            self._write(kinds.get(label, "notice"), text)
            self._advice += [text] if label == "advice" or "fault" in facts else []
        else:
            self._write("log", console_text.render_event(kind, facts))

    def end(self, outcome: Outcome) -> None:
        """Write the summary, and close every output, also if one of them fails."""
        has_failed = outcome.status == "failed"
        try:
            # A failed run has reported its error; a full disk must not hide it.
            with suppress(*([StorageError] if has_failed else [])):
                if self._progress is not None:
                    summary = console_text.render_summary(outcome, self._about.predicted_memory_bytes)
                    # Only the supervisor knows which rank failed first, and reports it.
                    kind: Kind = "log" if has_failed else "summary"
                    self._write(kind, "\n".join(summary + self._advice))
        finally:
            for output in self._outputs:
                output.close()

    def _write(self, kind: Kind, text: str) -> None:
        if self._live and self._progress is not None and self._progress.step != self._drawn_step:
            self._draw()  # the bar stays below the line
        for output in self._outputs:
            output.write(kind, text)

    def _draw(self) -> None:
        from training.logging.terminal import LiveView  # imports rich, for a terminal only

        assert self._progress is not None
        view = LiveView(self._progress.position(), self._train_plan.units, self._usage())
        for output in self._live:
            output.draw(view)
        self._drawn_step, self._draw_at = self._progress.step, self._now() + _REDRAW_S
