"""W&B as a run sees it: told what happens, waited for at the end and not for ever."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.console_text import render_row
from training.settings import nested
from training.trackers.base import TrackedRun
from training.trackers.tracker_process import Message, TrackerProcess
from training.trackers.wandb_process import ALERTS, METRICS
from training.trackers.wandb_session import ENVIRONMENT
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from models.base import Predictions

_STOPPED_S = 5.0
"""A run that is stopped is waited for: its grace may be short, and what is left is sent later."""
_COMPLETING_S = 20.0
_LABEL = "W&B"


def tracker(tracked: TrackedRun, detail: str | None) -> Wandb:
    """What shows the run in the project `detail`; None: in the one that W&B is set to."""
    return Wandb(tracked, detail)


class Wandb(Callback):
    """Hands what happens to the process that W&B lives in.

    Whatever goes wrong there is one warning, and the run goes on: after a first fault with W&B's
    files alone, after a second without it.
    """

    def __init__(self, tracked: TrackedRun, project: str | None) -> None:
        # Settings are read here, where the run is built.
        self._checkpoints, self._wait_s = tracked.tracking.checkpoints, tracked.tracking.wait_s
        self._tracked, self._project = tracked, project
        self._metrics = tracked.folder / METRICS
        self._companion: TrackerProcess | None = None
        self._plan: Message = {}
        self._place: Message | None = None
        """Where the W&B run is, once that is known."""
        self._fault: str | None = None
        self._is_second = self._is_done = self._is_over = self._has_warned = False
        self._told: set[str] = set()
        self._eval_s, self._since, self._step = 0.0, 0.0, 0

    def start(self, train_plan: TrainPlan) -> None:
        """Start the process, which takes its time while training begins."""
        self._plan = _plan(self._tracked, self._project, train_plan)
        self._since, self._step = time.perf_counter(), train_plan.first_step
        self._begin()

    def logged(self, line: StepMetrics) -> None:
        """Have the new line of metrics.jsonl sent, with where the time went since the last one."""
        now = time.perf_counter()
        steps_s = line.step_time_s * (line.step - self._step)
        rest_s = max(now - self._since - steps_s - self._eval_s, 0.0)
        self._send_lines({"eval_s": self._eval_s, "rest_s": rest_s})
        self._eval_s, self._since, self._step = 0.0, now, line.step
        self._hear()

    def evaluated(self, evaluation: EvalResult) -> Action:
        """Have its line sent."""
        self._eval_s += evaluation.seconds
        self._send_lines({})
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Have a table and pictures shown."""
        pictures = [
            {**asdict(picture), "png": b64encode(picture.png).decode()}
            for picture in predictions.pictures
        ]
        rows = [list(row) for row in predictions.rows]
        columns = list(predictions.columns)
        shown = {"columns": columns, "rows": rows, "pictures": pictures}
        self._send({"kind": "predictions", "step": step, **shown})

    def saved(self, folder: Path, step: int) -> None:
        """Have the checkpoint uploaded, where the settings want it."""
        best = self._tracked.folder / "best"
        is_best = best.exists() and best.resolve() == folder.resolve()
        whole = self._checkpoints == "all"
        if whole or (self._checkpoints == "best" and is_best):
            said = {"folder": str(folder.absolute()), "whole": whole, "is_best": is_best}
            self._send({"kind": "saved", "step": step, **said})

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """Pass on what somebody may want to be called for."""
        if kind in ALERTS:
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._send({"kind": "event", "title": kind.replace("_", " "), "text": text})

    def end(self, outcome: Outcome) -> None:
        """Have the rest sent, and wait for that as long as the settings allow."""
        self._is_over = True
        if self._companion is None:
            return
        message = end_message(vars(outcome), outcome.exit_code)
        wait_s = self._wait_s if outcome.status == "completed" else min(self._wait_s, _STOPPED_S)
        if not self._finish(message, wait_s) and not self._is_second and self._place is None:
            self._begin(completes=True)  # its server never answered: there are no files yet
            if self._companion is not None:
                self._finish(message, _COMPLETING_S)
        self._tell_place()

    def _begin(self, completes: bool = False) -> None:
        """Start the process: after a fault with files alone; `completes`: with what they lack."""
        self._is_second, self._is_done = self._fault is not None, False
        try:
            self._companion = TrackerProcess(WANDB_MODULE, ENVIRONMENT)
        except OSError as fault:
            self._fault = f"its process cannot be started: {fault}"
            self._give_up()
            return
        forced = {"mode": "offline"} if self._is_second else {}
        self._companion.send({**self._plan, **forced, "completes": completes})
        self._send_lines({})

    def _finish(self, end: Message, wait_s: float) -> bool:
        """Have the process come to its end, for so long at most; whether all went well."""
        assert self._companion is not None
        self._send_lines({})
        self._send(end)
        in_time = self._companion.end(wait_s)
        self._listen(self._companion)
        if not self._is_done:
            late = f"not all was sent within {wait_s:g} s"
            self._fault = self._fault or ("its process has ended" if in_time else late)
        return self._is_done

    def _hear(self) -> None:
        """Take note of what the process says, and begin another where it came to grief."""
        companion = self._companion
        if companion is None:
            return
        was_alive = companion.is_alive  # before its last words are listened to
        self._listen(companion)
        if was_alive:
            if self._place is not None:
                self._tell_place()
            return
        companion.end(0.0)
        self._fault = self._fault or "its process has ended"
        if self._is_second:
            self._give_up()
        else:
            self._place = None
            self._begin()

    def _listen(self, companion: TrackerProcess) -> None:
        for message in companion.heard():
            if message["kind"] == "failed":
                self._fault = message["why"]
            elif message["kind"] == "done":
                self._is_done = True
            elif message["kind"] == "lacks":
                if not self._has_warned:
                    self._tell("warning", message["why"])
            else:
                self._place = message

    def _give_up(self) -> None:
        self._companion = self._place = None
        self._tell("warning", f"{self._fault}; the run goes on without it")

    def _tell_place(self) -> None:
        """Where the W&B run is; of one in files what sends them, once more when all is over."""
        place = self._place
        if place is None:
            if self._fault:
                self._tell("warning", f"{self._fault}; nothing is kept for it")
        elif place["url"] and not self._fault:
            self._tell("notice", place["url"])
        else:
            why = self._fault or place["why"]
            text = f"kept in files ({why}); to send them:  {place['command']}"
            first = self._fault and not self._has_warned
            self._tell("warning" if first else "notice", text, again=self._is_over)

    def _tell(self, kind: Literal["notice", "warning"], text: str, again: bool = False) -> None:
        """Tell the person something of W&B, once; `again`: also where they know it."""
        if text in self._told and not again:
            return
        self._told.add(text)
        self._has_warned |= kind == "warning"
        told = f"{_LABEL}: {text}" if kind == "warning" else render_row(_LABEL, text)
        if self._is_over:
            self._tracked.say(kind, told)
        elif kind == "warning":
            self._tracked.tell("warning", {"text": told})
        else:
            self._tracked.tell("tracked", {"by": _LABEL, "text": text})

    def _send(self, message: Message) -> None:
        if self._companion is not None:
            self._companion.send(message)

    def _send_lines(self, spent: Mapping[str, float]) -> None:
        """Have the lines that metrics.jsonl has now sent; `spent` belongs to the newest."""
        if message := lines_message(self._metrics, spent):
            self._send(message)


def _plan(tracked: TrackedRun, project: str | None, train_plan: TrainPlan) -> Message:
    about = tracked.about
    names = ("model", "mode", "engine", "device", "precision", "parameters", "samples", "stage")
    run = {name: getattr(about, name) for name in names}
    run |= {
        name: getattr(train_plan, name) for name in ("world_size", "global_batch", "total_steps")
    }
    return start_message(
        tracked.folder,
        project,
        tracked.settings,
        tracked.origins,
        run=run,
        tags=[about.model, about.mode, about.engine],
        first_step=train_plan.first_step,
        went_back=tracked.went_back,
        send=tracked.send,
    )


WANDB_MODULE = "training.trackers.wandb_process"
_AGAIN = 75
"""The exit code of a run that is to be run again."""


def start_message(
    folder: Path,
    project: str | None,
    settings: Mapping[str, Any],
    origins: Mapping[str, str],
    **more: Any,
) -> Message:
    """The plan: which W&B run it is, and its config; settings and origins by dotted key.

    `more`: `run` (facts for the config), `tags`, `first_step`, `went_back`, `send`, `mode`.
    """
    config = {**nested(settings), "origins": nested(origins), "run": more.pop("run")}
    return {
        "kind": "plan",
        "folder": str(folder.absolute()),
        "name": folder.absolute().name,
        "project": project,
        "config": config,
        "pid": os.getpid(),
        "mode": None,
        "completes": False,
        **more,
    }


def lines_message(metrics: Path, spent: Mapping[str, float]) -> Message | None:
    """That `metrics` has grown to what it is now; `spent` belongs to its newest line. Reads disk.

    None: there is no such file.
    """
    try:
        return {"kind": "lines", "upto": metrics.stat().st_size, "spent": spent}
    except OSError:  # the run will say so itself
        return None


def end_message(result: Mapping[str, Any], exit_code: int) -> Message:
    """The end, with what result.json tells of it."""
    names = ("status", "reason", "steps", "epochs", "wall_s", "samples_per_s")
    summary = {f"result/{name}": result.get(name) for name in names}
    peaks = (result.get("peak_memory_bytes") or {}).items()
    summary |= {f"result/peak_{name}_bytes": value for name, value in peaks}
    summary |= {f"best/{name}": value for name, value in (result.get("best") or {}).items()}
    return {
        "kind": "end",
        "exit_code": exit_code,
        "goes_on": exit_code == _AGAIN,
        "summary": {name: value for name, value in summary.items() if value is not None},
    }


def project_of(typed: Sequence[str]) -> str | None:
    """The project that a setting `track` names for W&B; None: none, or no W&B."""
    found = (text.partition(":") for text in typed)
    return next((detail for name, _, detail in found if name == "wandb" and detail), None)
