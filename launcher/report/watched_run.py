"""A run seen through its folder: its state, and its view as lines of text and as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from rich.console import Group, RenderableType
from rich.text import Text

from launcher.report import run_record
from launcher.run_folder import checkpoint_search, lock, run_folder
from launcher.run_folder.reader import FollowedLines, RunReader
from slurm.environment import SLURM_FOLDER
from training.callbacks.base import StepMetrics
from training.logging import console_text
from training.logging.console_text import describe_event, render_row
from training.logging.metrics import step_metrics, usage_of
from training.logging.printable import printable
from training.logging.progress import Progress
from training.logging.quantities import real
from training.logging.terminal import LiveView, unwrapped
from training.train_plan import TrainPlan

_KILLED = "no process holds its lock, and it wrote no result"
_TRAIN_PLAN = TypeAdapter(TrainPlan)
State = Literal["not started", "starting", "running", "completed", "stopped", "failed", "killed"]
ENDED: tuple[State, ...] = ("completed", "stopped", "failed", "killed")


@dataclass(frozen=True)
class Snapshot:
    """What is known of a run at one moment."""

    name: str
    state: State
    reason: str
    """Why it ended; empty: for no other reason than its last step."""
    view: LiveView | None
    """None: no step is planned yet."""
    best: Mapping[str, Any] | None
    """Of a run that has ended: metric, value and step of its best evaluation."""

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, unless it is resumed."""
        return self.state in ENDED


class WatchedRun:
    """Follows the files of one run. Reads the disk; changes nothing."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        run_folder.check_regular(folder)
        self._folder, self._now = folder, now
        self._lines = FollowedLines(folder)
        self._forget()

    def _forget(self) -> None:
        self._clock = 0.0
        """Of the last event, or now while the run continues; seconds since the epoch."""
        self._last_kind = ""
        self._train_plan: TrainPlan | None = None
        self._progress: Progress | None = None
        self._between_s = 0.0
        """Of evaluations and saves since the last logged step."""
        self._usage: Mapping[str, float] = {}
        self._event: str | None = None

    def snapshot(self) -> Snapshot:
        """The run now. Raises SettingsError if a file of it is damaged."""
        is_held = lock.is_held(self._folder)  # first: a run releases it after its last line
        if self._lines.restarted():
            self._forget()
        for line in self._lines.new():
            with suppress(KeyError, TypeError, ValueError, AttributeError):  # of another version
                self._add(line)
        result = RunReader(self._folder).result() or {}
        state = self._state(is_held, result)
        if state not in ENDED or state == "killed":
            result = {}
        reason = str(result.get("reason") or "")
        return Snapshot(str(self._folder), state, reason, self._view(state), result.get("best"))

    def _state(self, is_held: bool | None, result: Mapping[str, Any]) -> State:
        has_started = self._progress is not None
        # Without locks only the files tell, and they say nothing of a process that was killed.
        if is_held or (is_held is None and has_started and self._last_kind != "stopped"):
            return "running" if has_started and self._last_kind != "stopped" else "starting"
        status = result.get("status")
        if status in ENDED and self._last_kind in ("", "stopped"):
            return next(state for state in ENDED if state == status)
        return "killed" if has_started else "not started"

    def _add(self, line: Mapping[str, Any]) -> None:
        if line["kind"] == "train":
            self._add_step(step_metrics(line), line)
            return
        kind, step, facts = line["kind"], int(line["step"]), line["facts"]
        self._clock = datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp()
        self._last_kind = kind
        if kind == "started":
            train_plan = _TRAIN_PLAN.validate_python(facts)
            self._train_plan, self._between_s = train_plan, 0.0
            self._progress = Progress(train_plan, lambda: self._clock)
        elif kind in ("evaluated", "saved"):
            self._between_s += float(facts.get("seconds", 0.0))
        self._event = describe_event(kind, step, facts) or self._event

    def _add_step(self, metrics: StepMetrics, line: Mapping[str, Any]) -> None:
        self._usage = usage_of(line)
        plan, progress = self._train_plan, self._progress
        if plan is None or progress is None or metrics.step <= plan.first_step:
            return
        steps = metrics.step - progress.step
        progress.stepped(metrics.step, metrics.step_time_s * steps + self._between_s)
        self._between_s = 0.0
        progress.last = metrics

    def _view(self, state: State) -> LiveView | None:
        if self._progress is None or self._train_plan is None:
            return None
        if state == "running":
            self._clock = max(self._clock, self._now())
        position = self._progress.position()
        if state in ENDED:
            position = replace(position, remaining_s=None)
        return LiveView(position, self._train_plan.units, self._usage, self._event)


def folders_of(argument: str) -> list[Path]:
    """The run folder that `argument` names; of a staged run, those of its stages.

    Of a folder of runs, those of all of them, the first started first. Reads the disk. Raises
    SettingsError if it is none of these, nor the folder of a job to come.
    """
    path = Path(argument)
    if stages := RunReader(path).stages():
        return list(stages.values())
    if run_folder.is_run_folder(path) or (path / SLURM_FOLDER).is_dir():
        return [path]
    runs = checkpoint_search.newest(run_folder.SETTINGS, run_folder.STAGES, parent=path)[::-1]
    if folders := [folder for run in runs for folder in run_record.runs_of(run)]:
        return folders
    raise checkpoint_search.no_run(path, f"the command line: watch {argument}", "watch")


def screen(snapshots: Sequence[Snapshot]) -> Group:
    """The runs for rich: one as its live view, of several two lines each. No line wraps."""
    shown: list[RenderableType] = []
    for snapshot in snapshots:
        lines = [f"{snapshot.state}  {snapshot.name}", *plain(snapshot).splitlines()[1:]]
        live = [snapshot.view] if snapshot.view and len(snapshots) == 1 else []
        end = lines[-1:] if live and snapshot.best is not None else []
        for line in lines[: 1 if live else 2]:
            shown.append(unwrapped(Text(printable(line))))
        shown += [*live, *(unwrapped(Text(line)) for line in end)]
    return Group(*shown)


def plain(snapshot: Snapshot) -> str:
    """A run in a few lines, as a run prints them itself."""
    state = f"killed: {_KILLED}" if snapshot.state == "killed" else snapshot.state
    end = f"; {snapshot.reason}" if snapshot.reason else ""
    lines = [render_row("run", f"{snapshot.name}, {state}{end}")]
    if (view := snapshot.view) is None:
        return lines[0]
    if view.position.last is not None:
        usage = console_text.render_usage(view.usage)
        lines.append(console_text.render_step(view.position.last, view.position, view.units, usage))
    if view.event is not None:
        lines.append(render_row("last", view.event))
    if (best := snapshot.best) is not None:
        text = f"{best['metric']} {real(float(best['value']))} at step {best['step']}"
        lines.append(render_row("best", text))
    return "\n".join(lines)


def as_json(snapshot: Snapshot) -> Mapping[str, Any]:
    """A run for programs."""
    facts: dict[str, Any] = {"folder": snapshot.name, "state": snapshot.state}
    facts |= {"reason": snapshot.reason, "best": snapshot.best, "step": None, "total_steps": None}
    if (view := snapshot.view) is None:
        return facts
    position = view.position
    return {
        **facts,
        "step": position.step,
        "total_steps": position.total_steps,
        "elapsed_s": position.elapsed_s,
        "eta_s": position.remaining_s,
        "last_step": position.last and asdict(position.last),
        "units": view.units,
        "usage_percent": view.usage,
        "last_event": view.event,
    }
