"""A run seen through its folder: its state, and its view as lines of text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from gearshift.launcher.report import run_record
from gearshift.launcher.report.facts import event_text
from gearshift.launcher.run_folder import checkpoint_search, lock, run_folder
from gearshift.launcher.run_folder.followed_lines import FollowedLines
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.slurm.environment import SLURM_FOLDER
from gearshift.training.callbacks.base import Facts, Json, StepMetrics
from gearshift.training.logging.console_reporter import Progress
from gearshift.training.logging.console_text import WARNING, describe, render_best, render_row
from gearshift.training.logging.metrics import KEYS, OF_PART, usage_of
from gearshift.training.train_plan import TrainPlan

_TRAIN_PLAN = TypeAdapter(TrainPlan)
_STEP_METRICS = TypeAdapter(StepMetrics)
_SHOWN = ("evaluated", "saved", "resumed")
"""Kinds of events that are shown besides those that need attention."""
State = Literal["not started", "starting", "running", "completed", "stopped", "failed", "killed"]
ENDED: tuple[State, ...] = ("completed", "stopped", "failed", "killed")


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run at one moment."""

    name: str
    state: State
    reason: str
    """Why it ended; empty: for no other reason than its last step."""
    progress: Progress | None
    """Of the run, now; None: no step is planned yet."""
    best: Facts | None
    """Of a run that has ended: metric, value and step of its best evaluation."""

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, unless it is resumed."""
        return self.state in ENDED

    @property
    def why(self) -> str:
        """Why it ended, in one line; of a failed run its error."""
        if self.state == "killed":
            return "no process holds its lock, and it wrote no result"
        return " ".join(self.reason.split())


class WatchedRun:
    """Follows the files of one run. Reads the disk; changes nothing."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        run_folder.check_regular(folder)
        self._folder = folder
        self._now = now
        self._lines = FollowedLines(folder)
        self._forget()

    def _forget(self) -> None:
        self._clock = 0.0
        """Of the last event, or now while the run continues; seconds since the epoch."""
        self._last_kind = ""
        self._progress: Progress | None = None
        self._between_s = 0.0
        """Of evaluations and saves since the last logged step."""
        self._event: str | None = None

    def snapshot(self) -> Snapshot:
        """The run now. Raises SettingsError if a file of it is damaged."""
        is_held = lock.is_held(self._folder)  # first: a run releases it after its last line
        if self._lines.restarted():
            self._forget()
        for line in self._lines.new():
            with suppress(*run_record.OF_ANOTHER_VERSION):
                self._add(line)
        result = RunReader(self._folder).result() or {}
        state = self._state(is_held, result.get("status"))
        if state == "running":
            self._clock = max(self._clock, self._now())
        if self._progress:
            self._progress.event = self._event
            self._progress.has_ended = state in ENDED
        if state not in ENDED or state == "killed":
            result = {}  # it is that of an earlier start
        return Snapshot(
            name=str(self._folder),
            state=state,
            reason=result.get("reason") or "",
            progress=self._progress,
            best=result.get("best"),
        )

    def _state(self, is_held: bool | None, status: State | None) -> State:
        trains = self._progress and self._last_kind != "stopped"
        # Without locks only the files tell, and they say nothing of a process that was killed.
        if trains and is_held is not False:
            return "running"
        if is_held:
            return "starting"
        if status in ENDED and self._last_kind in ("", "stopped"):
            return status
        return "killed" if self._progress else "not started"

    def _add(self, line: Facts) -> None:
        kind = line["kind"]
        if kind == "train":
            self._add_step(step_metrics(line), line)
            return
        facts = line["facts"]
        self._clock = datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()
        self._last_kind = kind
        if kind == "started":
            self._between_s = 0.0
            self._progress = Progress(_TRAIN_PLAN.validate_python(facts), lambda: self._clock)
        elif kind == "fitted" and self._progress is not None:
            self._progress.fit(facts)
        elif kind in ("evaluated", "saved"):
            self._between_s += float(facts.get("seconds", 0.0))
        self._event = _shown(line) or self._event

    def _add_step(self, metrics: StepMetrics, line: Facts) -> None:
        progress = self._progress
        if not progress or metrics.step <= progress.train_plan.first_step:
            return
        # Not each step is logged, and its time is the mean of those since the last line.
        steps = metrics.step - progress.step
        progress.stepped(metrics.step, metrics.step_time_s * steps + self._between_s)
        self._between_s = 0.0
        progress.last = metrics
        progress.usage = usage_of(line)


def _shown(event: Facts) -> str | None:
    """An event in one line; None: one that is not shown."""
    label, _ = describe(event["kind"], event["facts"]) or ("", "")
    if event["kind"] in _SHOWN or label == WARNING:
        return f"step {event['step']}: {event_text(event)}"
    return None


def folders_of(argument: str) -> list[Path]:
    """The run folder that `argument` names; of a staged run, those of its stages.

    Of a folder of runs, those of all of them, the first started first. Reads the disk. Raises
    SettingsError if it is none of these, nor the folder of a job to come.
    """
    path = Path(argument)
    folders = run_record.runs_of(path)
    if folders:
        return folders
    if (path / SLURM_FOLDER).is_dir():
        return [path]
    newest = checkpoint_search.newest(run_folder.SETTINGS, run_folder.STAGES, parent=path)
    for run in reversed(newest):
        folders += run_record.runs_of(run)
    if not folders:
        raise checkpoint_search.no_run(path, f"the command line: watch {argument}", "watch")
    return folders


def screen(snapshots: Sequence[Snapshot]) -> list[str]:
    """The lines of runs on a terminal: of one its live view, of several two lines each."""
    shown = []
    for snapshot in snapshots:
        lines = [*filter(None, [f"{snapshot.state}  {snapshot.name}", snapshot.why])]
        rows = _rows(snapshot)
        if len(snapshots) > 1 or not snapshot.progress:
            lines = (lines + rows)[:2]
        else:
            lines += snapshot.progress.lines()
            if snapshot.best:
                lines.append(rows[-1])
        shown += lines
    return shown


def plain(snapshot: Snapshot) -> str:
    """A run in a few lines, as a run prints them itself."""
    text = "; ".join(filter(None, [f"{snapshot.name}, {snapshot.state}", snapshot.why]))
    return "\n".join([render_row("run", text), *_rows(snapshot)])


def _rows(snapshot: Snapshot) -> list[str]:
    """The lines of a run below its state: its progress, its last event and its best evaluation."""
    progress = snapshot.progress
    if not progress:
        return []
    lines = []
    if progress.last:
        lines.append(progress.line())
    if progress.event:
        lines.append(render_row("last", progress.event))
    if snapshot.best:
        lines.append(render_row("best", render_best(snapshot.best)))
    return lines


def as_json(snapshot: Snapshot) -> Facts:
    """A run for programs."""
    facts = {
        "folder": snapshot.name,
        "state": snapshot.state,
        "reason": snapshot.reason,
        "best": snapshot.best,
    }
    progress = snapshot.progress
    if not progress:
        return facts | {"step": None, "total_steps": None}
    return facts | {
        "step": progress.step,
        "total_steps": progress.train_plan.end_step,
        "elapsed_s": progress.elapsed_s,
        "eta_s": progress.remaining_s,
        "last_step": progress.last and asdict(progress.last),
        "units": progress.train_plan.units,
        "usage_percent": progress.usage,
        "last_event": progress.event,
    }


def step_metrics(line: Facts) -> StepMetrics:
    """The "train" line that `MetricsWriter` wrote. Raises ValueError."""
    # NaN and infinities are strings in metrics.jsonl, which pydantic parses as `float` does.
    values: Json = {
        field.name: line.get(KEYS.get(field.name, field.name)) for field in fields(StepMetrics)
    }
    values["parts"] = line.get("parts", {})
    values["lrs"] = {
        key.removeprefix(OF_PART): rate for key, rate in line.items() if key.startswith(OF_PART)
    }
    return _STEP_METRICS.validate_python(values)
