"""The process of the trackers, as the run sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from gearshift.training.callbacks.base import Callback, Emit, Outcome, StepMetrics
from gearshift.training.trackers.follow import Run
from gearshift.training.train_plan import TrainPlan

# A stopped run waits this long: its grace period may be short, and the rest is sent later.
_STOPPED_WAIT_S = 5.0
Kind = Literal["notice", "warning"]
_Process = subprocess.Popen[bytes]
_ROOT = str(Path(__file__).absolute().parents[3])
# The working directory is not searched: it may hold packages with the names of libraries.
_CODE = (
    "import sys; root = sys.argv.pop(1); sys.path[:1] = [] if root in sys.path[1:] else [root]; "
    "from gearshift.training.trackers.follow import main; main()"
)


@dataclass
class Trackers(Callback):
    """The process of training.trackers.follow; for rank 0. Never raises; only `finish` waits."""

    run: Run
    wait_s: float
    emit: Emit
    """Send an event to all callbacks while the run trains."""
    report: Callable[[Kind, str, str], None]
    """Print the label of a tracker and a text after the run has ended."""
    _process: _Process | None = field(default=None, init=False)
    _is_over: bool = field(default=False, init=False)

    def start(self, train_plan: TrainPlan) -> None:
        facts = {
            **self.run.facts,
            "world_size": train_plan.world_size,
            "global_batch": train_plan.global_batch,
            "total_steps": train_plan.total_steps if train_plan.has_length else None,
        }
        self.begin(replace(self.run, facts=facts, first_step=train_plan.first_step))

    def begin(self, run: Run) -> None:
        """Start the process, which the signals of the run do not reach."""
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
            self._tell(
                "warning",
                "trackers",
                f"their process cannot be started: {error}",
            )

    def logged(self, line: StepMetrics) -> None:
        process = self._process
        if process is not None:
            assert process.stdout
            os.set_blocking(process.stdout.fileno(), False)
            process.poll()  # before its last lines are read
            self._pass_on(process, process.stdout.read() or b"")

    def end(self, outcome: Outcome) -> None:
        most_s = self.wait_s if outcome.status == "completed" else _STOPPED_WAIT_S
        self.finish(min(self.wait_s, most_s))

    def finish(self, wait_s: float) -> None:
        """Tell the process that the run is over, and wait for its end; after `wait_s` kill it."""
        self._is_over = True
        process = self._process
        if process is None:
            return
        try:  # a line, as data-loader workers may keep the pipe open
            self._pass_on(process, process.communicate(b"\n", wait_s)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            self._pass_on(
                process,
                output,
                f"sending took longer than {wait_s:g} s",
            )

    def _pass_on(
        self,
        process: _Process,
        output: bytes,
        why: str = "their process has ended",
    ) -> None:
        """Tell what the process wrote, and `why` trackers lack something once it has failed."""
        for line in output.splitlines():
            self._tell(*json.loads(line))
        if process.returncode is not None:
            self._process = None
            if process.returncode:
                self._tell("warning", "trackers", why)

    def _tell(self, kind: Kind, label: str, text: str) -> None:
        if kind == "warning" and self.run.command and self.run.command not in text:
            text = f"{text}; to send what it lacks:  {self.run.command}"
        if self._is_over:
            self.report(kind, label, text)
        elif kind == "warning":
            self.emit(kind, {"text": f"{label}: {text}"})
        else:
            self.emit("tracked", {"by": label, "text": text})
