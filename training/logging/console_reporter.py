"""Tells people what happens in a run, through one voice or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from training.callbacks.base import (
    Action,
    Callback,
    EvalResult,
    Outcome,
    RunInfo,
    Step,
    StepMetrics,
)
from training.logging import console_text
from training.logging.outputs import ConsoleOutput, Kind
from training.logging.progress import Progress
from training.resources.monitor import ResourceUsage
from training.storage import StorageError
from training.train_plan import TrainPlan

_REDRAW_S = 0.25
_DRAWING_SHARE = 0.002
"""Of the training thread's time; a drawing takes about a millisecond."""


class ConsoleReporter(Callback):
    """Turns what the loop tells into texts; for rank 0."""

    def __init__(
        self,
        about: RunInfo,
        voices: Sequence[ConsoleOutput],
        now: Callable[[], float] = time.monotonic,
        gauges: ResourceUsage | None = None,
    ) -> None:
        """`gauges` tell how full the machine is."""
        self._gauges = gauges or ResourceUsage()
        self._about = about
        self._voices = voices
        self._now = now
        self._drawing = [voice for voice in voices if voice.draws]
        self._draw_at = now()
        self._budget: TrainPlan
        self._progress: Progress | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """Say what begins."""
        self._budget = train_plan
        self._progress = Progress(train_plan, self._now)
        self._say("head", "\n".join(console_text.render_header(self._about, train_plan)))

    def step(self, step: Step) -> Action:
        """Count the step, and draw where the last drawing is old."""
        assert self._progress is not None
        self._progress.stepped(step.step)
        if self._drawing and self._now() >= self._draw_at:
            self._draw()
        return Action.NOTHING

    def logged(self, line: StepMetrics) -> None:
        """Say the numbers of a logged step."""
        assert self._progress is not None
        self._progress.last = line
        use = console_text.render_usage(self._gauges.newest)
        text = console_text.render_step(line, self._progress.position(), self._budget.units, use)
        self._say("train", text)

    def evaluated(self, evaluation: EvalResult) -> Action:
        """Say the metrics of a split."""
        assert self._progress is not None
        self._progress.evaluated()
        kind: Kind = "best" if evaluation.is_best else "evaluated"
        self._say(kind, console_text.render_evaluation(evaluation, self._budget.end_step))
        return Action.NOTHING

    def saved(self, folder: Path, step: int) -> None:
        """Say which checkpoint is on disk."""
        assert self._progress is not None
        self._progress.saved(step)
        name = f"{folder.parent.name}/{folder.name}"
        self._say("saved", console_text.render_saved(name, step, self._budget.end_step))

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """Show a preview, say what cannot wait, and leave the rest to the log."""
        if kind == "preview":
            for voice in self._voices:
                voice.show(f"{facts['when']} training", console_text.printable(str(facts["text"])))
        elif kind == "resumed":
            self._say("head", console_text.render_resumed(facts))
        elif kind == "experience_trained":
            self._say("notice", console_text.render_experience(facts))
        elif kind == "best_loaded":
            self._say(
                "notice",
                console_text.render_row("weights", f"those of step {facts['step']}, the best"),
            )
        elif kind == "control":
            self._say("notice", console_text.render_row("control", str(facts["text"])))
        elif kind == "tracked":
            self._say("notice", console_text.render_row(str(facts["by"]), str(facts["text"])))
        elif (text := console_text.render_urgent(kind, facts)) is not None:
            self._say("warning", text)
        else:
            self._say("log", console_text.render_event(kind, facts))

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, and close every voice, also when one of them fails."""
        try:
            # Of a failed run the fault is told already; a full disk must not hide it.
            with suppress(*([StorageError] if outcome.status == "failed" else [])):
                if self._progress is not None:
                    # Which rank failed first is known to the supervisor alone, who will say it.
                    kind: Kind = "log" if outcome.status == "failed" else "summary"
                    lines = console_text.render_summary(outcome) + console_text.render_near_limits(
                        self._gauges.near_limits()
                    )
                    self._say(kind, "\n".join(lines))
        finally:
            for voice in self._voices:
                voice.close()

    def _say(self, kind: Kind, text: str) -> None:
        for voice in self._voices:
            voice.say(kind, text)

    def _draw(self) -> None:
        assert self._progress is not None
        began = self._now()
        position = self._progress.position()
        for voice in self._drawing:
            voice.draw(position, self._budget.units, console_text.render_usage(self._gauges.newest))
        now = self._now()
        self._draw_at = now + max(_REDRAW_S, (now - began) / _DRAWING_SHARE)
