"""The process beside a run: follows its metrics and events, and sends them to the trackers."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import re
import secrets
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from gearshift.training.callbacks.base import Facts, Numbers
from gearshift.training.callbacks.preemption import ignore_ending
from gearshift.training.logging.encoding import caught
from gearshift.training.settings import TRACKERS
from gearshift.training.storage import atomic_write, lines_of, open_to_read, read_json

_CHARTS = (  # keys of a "train" line, and their chart
    (r"loss|epoch|samples|skipped", r"train/\g<0>"),
    (r"(labelled_)?tokens", r"train/\1units"),
    (r"lr|lr\..*|grad_norm|loss_scale", r"optim/\g<0>"),
    (r"samples_per_s|mfu", r"perf/\g<0>"),
    (r"(labelled_)?tokens_per_s", r"perf/\1units_per_s"),
    (r"(.*)_memory_bytes", r"memory/\1_bytes"),
    (r"(.*)_time_s", r"time/\1_s"),
    (r".*_percent", r"machine/\g<0>"),
)
TAGS = ("model", "mode", "engine")  # facts by which a tracker filters runs
# Times between two looks at the files, and between two attempts to reach a tracker.
_POLL_S = 1.0
_RETRY_S = 300.0
# How long the process sends the rest of a killed run, and a later one waits for it
_ORPHAN_S = 60.0
_MOST_LINES = 5000


@dataclass(frozen=True)
class Run:
    folder: Path
    track: Sequence[str]
    settings: Facts
    origins: Mapping[str, str]
    facts: Facts
    """Names and numbers that do not change: model, mode, engine, parameters, …"""
    first_step: int = 0
    went_back: bool = False
    """The user let it go back in its own folder, to `first_step`."""
    checkpoints: str = "none"
    """Those to upload: none, best or all."""
    command: str | None = None
    """What sends the trackers what they lack; None: the run is finished, and this is it."""


class Tracker:
    """An open run, which `Session(run, project, id)` of its module opened or resumed.

    Raises what fails.
    """

    notice: tuple[str, str]
    """"notice" or "warning", and where the run is to be seen."""
    last_step = 0
    """The newest step that the tracker had when the run was opened."""

    def log(self, step: int, values: Numbers) -> None:
        """Add numbers by chart of a later step than `last_step`; steps only grow."""

    def flush(self) -> None:
        """Send what was logged, if it was not sent yet."""

    def log_samples(self, step: int, samples: Facts) -> None:
        """Add a table (`columns`, `rows`) and `pictures` (`name`, `caption`, `path` of a PNG)."""

    def upload(self, step: int, files: Sequence[Path], is_best: bool) -> None:
        """Upload the files of a checkpoint."""

    def finish(self, summary: Facts, exit_code: int) -> None:
        """Add the results of the run, close it, and wait until all is sent."""


@dataclass
class Following:
    """Sends one run to one tracker, from the first line that it lacks to the end of the run."""

    run: Run
    track: str
    over: threading.Event
    say: Callable[[str, str], None]
    _has_warned = False

    def __post_init__(self) -> None:
        self._name, _, self._project = self.track.partition(":")
        self._went_back = self.run.went_back
        self._newest_saved = self.run.first_step

    def follow(self) -> None:
        """Send all until the run is over; after a failure try again later."""
        is_last = False
        while not is_last:
            is_last = self.over.is_set()
            with caught(self._warn):
                return self.send()
            self.over.wait(_RETRY_S)

    def send(self) -> None:
        """Open the run at the tracker; send what it lacks, and what comes until the run is over."""
        folder = self.run.folder
        metrics = _lines(folder / "metrics.jsonl")
        events = _lines(folder / "events.jsonl")
        self._rows = defaultdict[int, dict[str, float]](dict)
        self._samples: dict[int, str] = {}
        self._exit_code: int | None = None
        newest = 0
        is_over = False
        lines: list[Any] = []
        tracker = self._open()
        self.say(*tracker.notice)
        while lines or not is_over:
            if not lines:
                is_over = self.over.wait(_POLL_S)  # before the lines, which then are all
            lines = next(metrics)  # before the events: a line comes after its event
            for event in next(events):
                self._take(event, tracker)
            for line in lines:
                if "step" in line:  # else of another program
                    newest = line["step"]
                    self._rows[newest] |= chart_values(line)
            self._log(newest, tracker)
            tracker.flush()
        if self._exit_code is None:  # killed
            tracker.finish({}, 1)
        else:
            tracker.finish(_summary(read_json(folder / "result.json")), self._exit_code)

    def _take(self, event: Facts, tracker: Tracker) -> None:
        kind = event["kind"]
        step = event["step"]
        facts = event["facts"]
        if kind in ("started", "stopped"):
            self._exit_code = facts.get("exit_code")
        elif kind == "predicted":
            self._rows[step] = self._rows[step]
            self._samples[step] = facts["file"]
        elif kind == "saved" and step > self._newest_saved:
            self._newest_saved = step
            self._upload(
                tracker,
                step,
                self.run.folder / "checkpoints" / facts["folder"],
            )

    def _log(self, newest: int, tracker: Tracker) -> None:
        """Log the steps up to `newest`, whose numbers are complete."""
        for step in sorted(step for step in self._rows if step <= newest):
            values = self._rows.pop(step)
            name = self._samples.pop(step, None)
            if step <= tracker.last_step:
                continue
            tracker.log(step, values)
            if name is not None:
                with caught(self._warn):
                    tracker.log_samples(step, _samples(self.run.folder / "samples" / name))

    def _open(self) -> Tracker:
        """The run at the tracker; another one there if the user let the run go back."""
        path = self.run.folder / self._name / "run.json"
        session = importlib.import_module(TRACKERS[self._name].module).Session
        if path.exists():
            id_ = f"{int(read_json(path)['id'], 16):08x}"  # a stranger's could be a path
            tracker: Tracker = session(self.run, self._project, id_)
            if not self._went_back or tracker.last_step <= self.run.first_step:
                return tracker
            tracker.finish({}, 0)
        self._went_back = False
        id_ = secrets.token_hex(4)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, json.dumps({"id": id_}).encode())
        return session(self.run, self._project, id_)

    def _upload(self, tracker: Tracker, step: int, folder: Path) -> None:
        is_best = (self.run.folder / "best").resolve() == folder.resolve()
        with caught(self._warn):
            if not folder.is_dir():
                return
            if self.run.checkpoints == "all":
                files = sorted(folder.iterdir())
            elif self.run.checkpoints == "best" and is_best:
                names = ("manifest.json", "model.safetensors")
                files = [folder / name for name in names if (folder / name).exists()]
            else:
                return
            tracker.upload(step, files, is_best)

    def _warn(self, error: str) -> None:
        """Tell the first error; a server that accepts metrics may still refuse files."""
        if not self._has_warned:
            self.say("warning", error)
        self._has_warned = True


def _lines(path: Path) -> Iterator[list[Any]]:
    """The new lines of a growing file of JSON, some thousands at a time. Reads disk."""
    at = 0
    while True:
        lines: list[bytes] = []
        with suppress(FileNotFoundError), open_to_read(path) as file:
            file.seek(at)
            lines += islice(lines_of(file), _MOST_LINES)
        at += sum(map(len, lines))
        yield list(map(json.loads, lines))


def _samples(path: Path) -> Facts:
    samples = read_json(path)
    for picture in samples["pictures"]:
        picture["path"] = str(path.with_name(Path(picture["file"]).name))
    return samples


def chart_values(line: Facts) -> Numbers:
    """The numbers of a "train" or "eval" line by chart; unknown ones are left out."""
    values = {}
    if line["kind"] == "eval":
        group = "eval" if line["split"] == "val" else f"eval_{line['split']}"
        for name, value in line["metrics"].items():
            values[f"{group}/{name}"] = value
    else:
        for key, value in line.items():
            chart = _chart(key)
            if chart is not None and value is not None:
                values[chart] = value
        for name, value in line.get("parts", {}).items():
            values[f"train/{name}"] = value
    # NaN and infinities are strings in metrics.jsonl.
    return {chart: float(value) for chart, value in values.items()}


@cache
def _chart(key: str) -> str | None:
    for pattern, chart in _CHARTS:
        match = re.fullmatch(pattern, key)
        if match is not None:
            return match.expand(chart)
    return None


def _summary(result: Facts) -> Facts:
    names = ("status", "reason", "steps", "epochs", "wall_s", "samples_per_s")
    values = {f"result/{name}": result.get(name) for name in names}
    for side, count in (result.get("peak_memory_bytes") or {}).items():
        values[f"result/peak_{side}_bytes"] = count
    for name, value in (result.get("best") or {}).items():
        values[f"best/{name}"] = value
    return {name: value for name, value in values.items() if value is not None}


def main() -> None:
    """Follow the run that the file with the number in the first argument describes."""
    ignore_ending()  # they are the run's, which then ends us
    os.nice(5)  # training comes first, also with few cores
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the user does not need what trackers print
    with os.fdopen(int(sys.argv[1])) as file:
        facts = json.load(file)
    facts["folder"] = Path(facts["folder"])
    run = Run(**facts)
    over = threading.Event()
    with suppress(OSError):  # a file system without locks
        # An earlier process sends the rest first.
        fcntl.flock(os.open(run.folder, os.O_RDONLY), fcntl.LOCK_EX)

    def say(track: str, kind: str, text: str) -> None:
        label = TRACKERS[track.partition(":")[0]].label
        with suppress(BrokenPipeError):  # the run was killed
            # A pipe takes so much at once, or nothing.
            os.write(
                output,
                json.dumps(
                    [
                        kind,
                        label,
                        text[:500],
                    ]
                ).encode()
                + b"\n",
            )

    pool = ThreadPoolExecutor(len(run.track))
    for track in run.track:
        pool.submit(Following(run, track, over, partial(say, track)).follow)
    if not os.read(0, 1):  # the run was killed
        threading.Timer(_ORPHAN_S, os._exit, [1]).start()
    over.set()
    pool.shutdown()
    os._exit(0)  # not through an exit of a tracker, which may wait for its server
