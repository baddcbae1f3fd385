"""The process of the trackers, as the run sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from training.callbacks.base import Callback, Emit, Outcome, StepMetrics
from training.settings import TRACKERS
from training.trackers.follow import Run
from training.train_plan import TrainPlan

# A stopped run waits this long: its grace period may be short, and the rest is sent later.
_STOPPED_WAIT_S = 5.0
Kind = Literal["notice", "warning"]
_ENDED = "its process has ended"
_ROOT = str(Path(__file__).resolve().parents[2])
# The working directory is not searched: it may hold packages with the names of ours.
_CODE = (
    "import sys; root = sys.argv.pop(1); sys.path[:1] = [] if root in sys.path[1:] else [root]; "
    "from training.trackers.follow import main; main()"
)


@dataclass
class Trackers(Callback):
    """The process of training.trackers.follow, and what it says; for rank 0.

    Never raises, and only `finish` waits. Signals of the run do not reach the process.
    """

    run: Run
    wait_s: float
    emit: Emit
    """Send an event to all callbacks while the run trains."""
    report: Callable[[Kind, str, str], None]
    """Print the label of a tracker and a text after the run has ended."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _said: bytes = field(default=b"", init=False)
    _unsettled: set[str] = field(default_factory=set, init=False)
    """Trackers that have not said that they have everything, or why not."""
    _is_over: bool = field(default=False, init=False)

    def start(self, train_plan: TrainPlan) -> None:
        planned = ("world_size", "global_batch", "total_steps")
        facts = {**self.run.facts, **{name: getattr(train_plan, name) for name in planned}}
        self.begin(replace(self.run, facts=facts, first_step=train_plan.first_step))

    def begin(self, run: Run) -> None:
        """Start the process."""
        self._unsettled = {TRACKERS[text.partition(":")[0]].label for text in run.track}
        try:
            with tempfile.TemporaryFile() as file:  # a pipe could be full
                file.write(json.dumps(asdict(run), default=str).encode())
                file.seek(0)
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, _ROOT, str(file.fileno())],
                    pass_fds=[file.fileno()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except OSError as error:
            self._tell("warning", "trackers", f"their process cannot be started: {error}")
        else:
            assert self._process.stdout
            os.set_blocking(self._process.stdout.fileno(), False)

    def logged(self, line: StepMetrics) -> None:
        self._pass_on()

    def end(self, outcome: Outcome) -> None:
        is_done = outcome.status == "completed"
        self.finish(self.wait_s if is_done else min(self.wait_s, _STOPPED_WAIT_S))

    def finish(self, wait_s: float) -> None:
        """Tell the process that the run is over, and wait for its end; after `wait_s` it is killed."""
        self._is_over, why = True, _ENDED
        if (process := self._process) is None:
            return
        assert process.stdin
        with suppress(OSError):  # it has ended
            process.stdin.write(b"\n")  # data-loader workers may keep the pipe open
            process.stdin.close()
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            why = f"sending took longer than {wait_s:g} s"
        self._pass_on(why)

    def _pass_on(self, why: str = _ENDED) -> None:
        """Tell what the process said, and `why` trackers lack something once it has ended."""
        if (process := self._process) is None:
            return
        assert process.stdout
        has_ended = process.poll() is not None  # asked before its last lines are read
        *lines, self._said = (self._said + (process.stdout.read() or b"")).split(b"\n")
        for label, kind, text in map(json.loads, lines):
            if kind == "settled":
                self._unsettled.discard(label)
            else:
                self._tell(kind, label, text)
        if has_ended:
            self._process = None
            for label in sorted(self._unsettled):
                self._tell("warning", label, why)

    def _tell(self, kind: Kind, label: str, text: str) -> None:
        if kind == "warning" and self.run.command is not None:
            text = f"{text}; to send what it lacks:  {self.run.command}"
        if self._is_over or self.run.command is None:
            self.report(kind, label, text)
        elif kind == "warning":
            self.emit("warning", {"text": f"{label}: {text}"})
        else:
            self.emit("tracked", {"by": label, "text": text})
