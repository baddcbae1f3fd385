"""The process of the trackers, as the run sees it: its start, what it says, and its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from training.callbacks.base import Callback, Emit, Outcome, StepMetrics
from training.logging.console_text import render_row
from training.settings import TRACKERS
from training.trackers.follow import EVENTS, Lines, Run
from training.train_plan import TrainPlan

# A stopped run waits this long: its grace period may be short, and the rest is sent later.
_STOPPED_WAIT_S = 5.0
_ENDED = "its process has ended"
_ROOT = str(Path(__file__).resolve().parents[2])
# The working directory is not searched: it may hold packages with the names of ours.
_CODE = (
    "import sys; root = sys.argv.pop(1); sys.path[:1] = [] if root in sys.path[1:] else [root]; "
    "from training.trackers.follow import main; main()"
)


class Follower:
    """The process of training.trackers.follow; signals of the run do not reach it.

    Only `end` waits.
    """

    def __init__(self, run: Run) -> None:
        """Raises OSError if it cannot be started."""
        self.unsettled = {TRACKERS[text.partition(":")[0]].label for text in run.track}
        """Trackers that have not said that they have everything, or why not."""
        with tempfile.TemporaryFile() as file:  # a pipe could be full
            file.write(json.dumps(asdict(run), default=str).encode())
            file.seek(0)
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CODE, _ROOT, str(file.fileno())],
                pass_fds=[file.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert self.process.stdout
        self._output, self._said = self.process.stdout.fileno(), b""
        os.set_blocking(self._output, False)

    def said(self) -> Iterator[tuple[str, str, str]]:
        """What it said since the last call: tracker, "notice" or "warning", and a text."""
        with suppress(BlockingIOError):
            while data := os.read(self._output, 65536):
                self._said += data
        *lines, self._said = self._said.split(b"\n")
        for label, kind, text in map(json.loads, lines):
            if kind == "settled":
                self.unsettled.discard(label)
            else:
                yield label, kind, text

    def end(self, wait_s: float) -> bool:
        """Tell it that the run is over, and wait; whether it ended in time. Else it is killed."""
        assert self.process.stdin
        with suppress(OSError):  # it has ended
            self.process.stdin.write(b"\n")  # data-loader workers may keep the pipe open
            self.process.stdin.close()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
        return True


@dataclass
class Trackers(Callback):
    """Starts the process of the trackers and passes on what it says; for rank 0. Never raises."""

    run: Run
    wait_s: float
    emit: Emit
    """Send an event (kind, facts) to all callbacks while the run trains."""
    report: Callable[[Literal["notice", "warning"], str], None]
    """Print a line after the run has ended."""
    _follower: Follower | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)

    def start(self, train_plan: TrainPlan) -> None:
        planned = ("world_size", "global_batch", "total_steps")
        facts = {**self.run.facts, **{name: getattr(train_plan, name) for name in planned}}
        begun = len(Lines(self.run.folder / EVENTS).new())
        run = replace(self.run, facts=facts, begun=begun, first_step=train_plan.first_step)
        try:
            self._follower = Follower(run)
        except OSError as error:
            self._warn("trackers", f"their process cannot be started: {error}")

    def logged(self, line: StepMetrics) -> None:
        self._pass_on()

    def end(self, outcome: Outcome) -> None:
        self._is_over, wait_s = True, self.wait_s
        if outcome.status != "completed":
            wait_s = min(wait_s, _STOPPED_WAIT_S)
        if self._follower is not None:
            in_time = self._follower.end(wait_s)
            self._pass_on(_ENDED if in_time else f"sending took longer than {wait_s:g} s")

    def _pass_on(self, why: str = _ENDED) -> None:
        """Print what the process said, and `why` trackers lack something once it has ended."""
        if (follower := self._follower) is None:
            return
        has_ended = follower.process.poll() is not None  # asked before its last lines are read
        for label, kind, text in follower.said():
            if kind == "warning":
                self._warn(label, text)
            elif self._is_over:
                self.report("notice", render_row(label, text))
            else:
                self.emit("tracked", {"by": label, "text": text})
        if has_ended:
            self._follower = None
            for label in sorted(follower.unsettled):
                self._warn(label, why)

    def _warn(self, label: str, text: str) -> None:
        text = f"{label}: {text}; to send what it lacks:  {self.run.command}"
        if self._is_over:
            self.report("warning", render_row("warning", text))
        else:
            self.emit("warning", {"text": text})
