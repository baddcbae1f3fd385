"""Trackers with a process beside the run: it gets what happens, and the end waits, not forever."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.console_text import render_row
from training.settings import nested
from training.trackers.base import TrackedRun
from training.trackers.metrics_reader import METRICS
from training.trackers.tracker_process import Message, TrackerProcess
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from models.base import Predictions

ALERTS = frozenset(
    {
        *("throttled", "pressure", "out_of_memory", "disk_filling"),
        *("straggler", "requeued", "nonfinite", "advice", "control_leak"),
    }
)
"""Events that may need a user's attention."""
_STOPPED_WAIT_S = 5.0
"""A stopped run waits this long: its grace period may be short, and the rest is sent later."""
_OFFLINE_WAIT_S = 20.0
_RETRY_S = 300.0
"""Time between two attempts to reach a service without files of its own."""
_REQUEUE_EXIT_CODE = 75


@dataclass(frozen=True)
class Service:
    """What a tracker's process talks to."""

    label: str
    """Its name in messages."""
    module: str
    """The program of the process: it calls training.trackers.session.serve."""
    records_offline: bool = False
    """Without its server it records in files, which are sent later."""


class ProcessTracker(Callback):
    """Sends what happens to the process of `service`, about the project of the user.

    Every failure there is one warning, and the run continues. A service that records offline does
    so after the first failure, and ends with the second; any other is tried again every five
    minutes and at the end, and then gets all lines that it lacks.
    """

    def __init__(self, run: TrackedRun, service: Service, project: str | None) -> None:
        # Settings are read here, while the run is built.
        self._checkpoints, self._wait_s = run.tracking.checkpoints, run.tracking.wait_s
        self._run, self._service, self._project = run, service, project
        self._metrics = run.folder / METRICS
        self._process: TrackerProcess | None = None
        self._start_message: Message = {}
        self._opened: Message | None = None
        """Address and sync command of the tracked run, once they are known."""
        self._error: str | None = None
        self._is_second = self._is_done = self._is_over = self._has_warned = False
        self._retry_at: float | None = None
        self._reported: set[str] = set()

    def start(self, train_plan: TrainPlan) -> None:
        """Start the process; training begins meanwhile."""
        self._start_message = _start_message(self._run, self._project, train_plan)
        self._start_process()

    def logged(self, line: StepMetrics) -> None:
        """Send the new line of metrics.jsonl, with the time split since the last one."""
        self._send_lines({"eval_s": line.eval_s, "rest_s": line.rest_s})
        self._check_process()

    def evaluated(self, evaluation: EvalResult) -> Action:
        """Send its line."""
        self._send_lines({})
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Send a table and pictures."""
        from training.trackers.predictions import columns_of_one_type  # imports torch

        pictures = [
            {**asdict(picture), "png": b64encode(picture.png).decode()}
            for picture in predictions.pictures
        ]
        rows, columns = columns_of_one_type(predictions), list(predictions.columns)
        table = {"columns": columns, "rows": rows, "pictures": pictures}
        self._send({"kind": "predictions", "step": step, **table})

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        """Upload the checkpoint, if the settings ask for it."""
        best = self._run.folder / "best"
        is_best = best.exists() and best.resolve() == folder.resolve()
        full = self._checkpoints == "all"
        if full or (self._checkpoints == "best" and is_best):
            facts = {"folder": str(folder.absolute()), "full": full, "is_best": is_best}
            self._send({"kind": "saved", "step": step, **facts})

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """Send an alert for events that may need a user's attention."""
        if kind in ALERTS:
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            self._send({"kind": "event", "title": kind.replace("_", " "), "text": text})

    def end(self, outcome: Outcome) -> None:
        """Send the rest, and wait for it as long as the settings allow."""
        self._is_over = True
        if self._process is None and self._retry_at is not None:
            self._start_process()
        if self._process is None:
            return
        message = end_message(vars(outcome), outcome.exit_code)
        completed = outcome.status == "completed"
        wait_s = self._wait_s if completed else min(self._wait_s, _STOPPED_WAIT_S)
        is_sent = self._finish(message, wait_s)
        if self._service.records_offline and not (is_sent or self._is_second or self._opened):
            self._start_process()  # the server never answered: there are no files yet
            if self._process is not None:
                self._finish(message, _OFFLINE_WAIT_S)
        self._report_address()

    def _start_process(self) -> None:
        """Start the process: offline after a failure, where the service can."""
        self._is_done = False
        if self._service.records_offline:
            self._is_second = self._error is not None
        else:
            self._error = self._retry_at = None
        try:
            self._process = TrackerProcess(self._service.module)
        except OSError as error:
            self._error = f"its process cannot be started: {error}"
            self._give_up()
            return
        forced = {"mode": "offline"} if self._is_second else {}
        self._process.send({**self._start_message, **forced})
        self._send_lines({})

    def _finish(self, end: Message, wait_s: float) -> bool:
        """Let the process end within `wait_s`; whether it has sent everything."""
        assert self._process is not None
        self._send_lines({})
        self._send(end)
        in_time = self._process.end(wait_s)
        self._receive(self._process)
        if not self._is_done:
            late = f"sending took longer than {wait_s:g} s"
            self._error = self._error or ("its process has ended" if in_time else late)
        return self._is_done

    def _check_process(self) -> None:
        """Handle the messages of the process, and start another one if it has failed."""
        process = self._process
        if process is None:
            if self._retry_at is not None and time.monotonic() >= self._retry_at:
                self._start_process()
            return
        was_alive = process.is_alive  # asked before its last messages are read
        self._receive(process)
        if was_alive:
            if self._opened is not None:
                self._report_address()
            return
        process.end(0.0)
        self._error = self._error or "its process has ended"
        if not self._service.records_offline:
            self._process = self._opened = None
            self._retry_at = time.monotonic() + _RETRY_S
            if not self._has_warned:
                text = f"{self._error}; the run continues, and sends what it lacks later"
                self._report("warning", text)
        elif self._is_second:
            self._give_up()
        else:
            self._opened = None
            self._start_process()

    def _receive(self, process: TrackerProcess) -> None:
        for message in process.received():
            if message["kind"] == "failed":
                self._error = message["why"]
            elif message["kind"] == "done":
                self._is_done = True
            elif message["kind"] == "incomplete":
                if not self._has_warned:
                    self._report("warning", message["why"])
            else:
                self._opened = message

    def _give_up(self) -> None:
        self._process = self._opened = None
        self._report("warning", f"{self._error}; the run continues without it")

    def _report_address(self) -> None:
        """The address of the tracked run, or the command that sends the rest; again at the end."""
        opened = self._opened
        if self._error and not self._service.records_offline:
            text = f"{self._error}; to send what it lacks:  {self._run.sync_command}"
            self._report("warning", text)
        elif opened is None:
            if self._error:
                self._report("warning", f"{self._error}; nothing was recorded for it")
        elif opened["url"] and not self._error:
            self._report("notice", opened["url"])
        else:
            reason = self._error or opened["why"]
            text = f"recorded offline ({reason}); to send it:  {opened['command']}"
            first = self._error and not self._has_warned
            self._report("warning" if first else "notice", text, repeat=self._is_over)

    def _report(self, kind: Literal["notice", "warning"], text: str, repeat: bool = False) -> None:
        """Print a line about the service once; `repeat`: also if it was printed before."""
        if text in self._reported and not repeat:
            return
        self._reported.add(text)
        self._has_warned |= kind == "warning"
        label = self._service.label
        line = f"{label}: {text}" if kind == "warning" else render_row(label, text)
        if self._is_over:
            self._run.report(kind, line)
        elif kind == "warning":
            self._run.emit("warning", {"text": line})
        else:
            self._run.emit("tracked", {"by": label, "text": text})

    def _send(self, message: Message) -> None:
        if self._process is not None:
            self._process.send(message)

    def _send_lines(self, times: Mapping[str, float]) -> None:
        """Send the new lines of metrics.jsonl; `times` belong to the newest one."""
        if message := lines_message(self._metrics, times):
            self._send(message)


def start_message(
    folder: Path,
    project: str | None,
    settings: Mapping[str, Any],
    origins: Mapping[str, str],
    **more: Any,
) -> Message:
    """The first message: tracked run and config, from settings and origins by dotted key.

    `more`: `run` (facts for the config), `tags`, `first_step`, `went_back`, `sync_command`, `mode`.
    """
    config = {**nested(settings), "origins": nested(origins), "run": more.pop("run")}
    return {
        "kind": "start",
        "folder": str(folder.absolute()),
        "name": folder.absolute().name,
        "project": project,
        "config": config,
        "pid": os.getpid(),
        "mode": None,
        **more,
    }


def lines_message(metrics: Path, times: Mapping[str, float]) -> Message | None:
    """The size of `metrics` now; `times` belong to its newest line. Reads disk.

    None: the file does not exist.
    """
    try:
        return {"kind": "lines", "end": metrics.stat().st_size, "times": times}
    except OSError:  # the metrics writer reports it
        return None


def end_message(result: Mapping[str, Any], exit_code: int) -> Message:
    """The last message, with the summary of result.json."""
    names = ("status", "reason", "steps", "epochs", "wall_s", "samples_per_s")
    summary = {f"result/{name}": result.get(name) for name in names}
    peaks = (result.get("peak_memory_bytes") or {}).items()
    summary |= {f"result/peak_{name}_bytes": value for name, value in peaks}
    summary |= {f"best/{name}": value for name, value in (result.get("best") or {}).items()}
    return {
        "kind": "end",
        "exit_code": exit_code,
        "will_resume": exit_code == _REQUEUE_EXIT_CODE,
        "summary": {name: value for name, value in summary.items() if value is not None},
    }


def _start_message(run: TrackedRun, project: str | None, train_plan: TrainPlan) -> Message:
    about = run.about
    names = ("model", "mode", "engine", "device", "precision", "parameters", "samples", "stage")
    facts = {name: getattr(about, name) for name in names}
    planned = ("world_size", "global_batch", "total_steps")
    facts |= {name: getattr(train_plan, name) for name in planned}
    return start_message(
        run.folder,
        project,
        run.settings,
        run.origins,
        run=facts,
        tags=[about.model, about.mode, about.engine],
        first_step=train_plan.first_step,
        went_back=run.went_back,
        sync_command=run.sync_command,
    )
