"""What a run on other machines has written so far, as the lines that a person knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from launcher.run_folder import run_folder
from training.callbacks.base import EvalResult, StepMetrics, TrainPlan
from training.logging import console_text
from training.logging.progress import Position

_CALLED = {"units": "tokens", "units_per_s": "tokens_per_s"}
"""Fields of a logged step that metrics.jsonl calls otherwise."""
_FAULTS = (KeyError, TypeError, ValueError, AttributeError)
"""Of a line that another version has written, or a dying disk."""


class Grown:
    """A file of lines that others write: each line once, in their order.

    A life of a job that goes on puts a copy in the place of the file, without the lines that it
    will write again: those are given again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: list[int] = []

    def news(self) -> list[dict[str, Any]]:
        """The whole lines that have come since. Reads the disk."""
        try:
            lines = self._path.read_bytes().split(b"\n")[:-1]
        except OSError:
            return []
        marks = [hash(line) for line in lines]
        same = 0
        for old, new in zip(self._read, marks, strict=False):
            if old != new:
                break
            same += 1
        self._read = marks
        return [one for line in lines[same:] if (one := _object(line)) is not None]


class Records:
    """The files of one run, told as its own console would."""

    def __init__(self, folder: Path) -> None:
        self._metrics = Grown(folder / run_folder.METRICS)
        self._events = Grown(folder / run_folder.EVENTS)
        self.is_over = False
        """Whether the run has said that it ends."""
        self._end_step = 0
        self._units = "tokens"

    def news(self) -> Iterator[str]:
        """What is to be said of what has been written since. Reads the disk."""
        events = self._events.news()
        # What a step came to is told before what was done after it; of two lives, one by one.
        begun = max((n for n, e in enumerate(events) if e.get("kind") == "started"), default=-1)
        earlier, later = events[: begun + 1], events[begun + 1 :]
        metrics = [one for one in self._metrics.news() if one.get("kind") == "train"]
        for line in [*earlier, *sorted([*metrics, *later], key=_step)]:
            try:
                text = self._text(line)
            except _FAULTS:
                continue
            if text:
                yield text

    def _text(self, line: Mapping[str, Any]) -> str | None:
        kind, facts = line["kind"], line.get("facts", {})
        self.is_over = kind == "stopped"
        if kind == "train":
            return self._train(line)
        if kind == "started":
            train_plan = TrainPlan(**_fields(TrainPlan, facts))
            self._end_step, self._units = train_plan.end_step, train_plan.units
            before = f", {train_plan.first_step} done before" if train_plan.first_step else ""
            return console_text.render_row("run", f"{train_plan.end_step} steps{before}")
        if kind == "resumed":
            return console_text.render_resumed(facts)
        if kind == "evaluated":
            return console_text.render_evaluation(
                EvalResult(**_fields(EvalResult, facts)), self._end_step
            )
        if kind == "saved":
            return console_text.render_saved(
                f"checkpoints/{facts['folder']}", facts["step"], self._end_step
            )
        if kind == "stopped":
            reason = f"; {facts['reason']}" if facts["reason"] else ""
            return console_text.render_row(str(facts["status"]), f"{facts['steps']} steps{reason}")
        told = console_text.render_urgent(kind, facts)
        return (
            None
            if told is None
            else console_text.render_row("warning", console_text.printable(told))
        )

    def _train(self, line: Mapping[str, Any]) -> str:
        told = {
            field.name: line.get(_CALLED.get(field.name, field.name))
            for field in fields(StepMetrics)
        }
        logged = StepMetrics(**{**told, "parts": line.get("parts", {})})
        left = self._end_step - logged.step
        # Evaluating and saving come on top.
        remaining = logged.step_time_s * left if left >= 0 else None
        position = Position(logged.step, self._end_step, 0.0, remaining, left > 0, logged)
        return console_text.render_step(logged, position, self._units)


def _step(line: Mapping[str, Any]) -> int:
    return int(line.get("step", 0))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _fields(kind: Any, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `facts` that the class has: a newer version may have written more."""
    return {field.name: facts[field.name] for field in fields(kind) if field.name in facts}
