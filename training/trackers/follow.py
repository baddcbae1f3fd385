"""The process beside a run: follows its metrics and events, and sends them to the trackers."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from training.callbacks.base import Facts, Numbers
from training.callbacks.preemption import ignore_ending
from training.logging.printable import caught
from training.settings import TRACKERS
from training.storage import atomic_write, lines_of, open_to_read, read_json

NAMES: Mapping[str, str] = {
    **{key: f"train/{key}" for key in ("loss", "epoch", "samples", "skipped")},
    **{key: f"optim/{key}" for key in ("lr", "grad_norm", "loss_scale")},
    **{key: f"perf/{key}" for key in ("samples_per_s", "mfu")},
    **{f"{key}_memory_bytes": f"memory/{key}_bytes" for key in ("device", "host")},
    **{f"{k}_time_s": f"time/{k}_s" for k in ("step", "data", "forward", "backward", "optimizer")},
    **{"tokens": "train/units", "tokens_per_s": "perf/units_per_s", "eval_s": "time/eval_s"},
}
"""Keys of a line and their chart. `parts` go below train/, resource use below machine/."""
# Times between two looks at the files, and between two attempts to reach a tracker.
_POLL_S, _RETRY_S = 1.0, 300.0
# How long the process sends the rest of a killed run, and how long a later one waits for it.
_ORPHAN_S, _LOCK_WAIT_S = 60.0, 10.0
EVENTS, _MOST_LINES = "events.jsonl", 5000
Row = tuple[int, Numbers]
"""A step, and its numbers by chart."""


@dataclass(frozen=True)
class Run:
    folder: Path
    track: Sequence[str]
    pid: int
    settings: Facts
    """Each value by its dotted key."""
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
    begun: int = sys.maxsize
    """Events before this process."""


class Tracker:
    """A run that is open at a tracker. Uses the network and the disk; raises what fails.

    A class `Session(run, project, id)` of its module opens or resumes the run.
    """

    notice: tuple[str, str]
    """"notice" or "warning", and where the run is to be seen."""
    last_step = 0
    """The newest step that the tracker had when the run was opened."""

    def log(self, rows: Sequence[Row]) -> None:
        """Add rows of later steps than `last_step`, in their order."""

    def log_samples(self, step: int, samples: Facts) -> None:
        """Add a table (`columns`, `rows`) and `pictures` (`name`, `caption`, `path` of a PNG)."""

    def upload(self, step: int, files: Sequence[Path], is_best: bool) -> None:
        """Upload the files of a checkpoint."""

    def finish(self, summary: Facts, exit_code: int, will_resume: bool) -> None:
        """Add the results of the run, close it, and wait until all is sent."""


class Lines:
    """The whole lines of a growing file, each once. Reads disk."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self, most: int | None = None) -> list[bytes]:
        lines: list[bytes] = []
        with suppress(FileNotFoundError), open_to_read(self._path) as file:
            file.seek(self._at)
            lines += islice(lines_of(file), most)
        self._at += sum(map(len, lines))
        return lines


class _Following:
    """Sends one run to one tracker, from the first line that it lacks to the end of the run."""

    def __init__(self, run: Run, track: str, over: threading.Event, say: Callable[..., None]) -> None:
        """`say` takes kind and text."""
        self._run, self._over, self._say, self._done = run, over, say, run.begun
        self._name, _, self._project = track.partition(":")
        self._went_back, self._has_warned = run.went_back, False

    def follow(self) -> None:
        """Try until the run is over and everything is sent; after a failure start again later."""
        is_last = is_sent = False
        while not (is_last or is_sent):
            is_last = self._over.is_set()
            with self._warned():
                self._send()
                is_sent = True
            if not is_sent:
                self._over.wait(_RETRY_S)
        self._say("settled", "")

    def _send(self) -> None:
        folder = self._run.folder
        self._metrics, self._events = Lines(folder / "metrics.jsonl"), Lines(folder / EVENTS)
        self._newest = self._events_read = 0
        self._stopped: Facts | None = None
        self._samples: dict[int, str] = {}
        self._eval_s: dict[int, float] = {}
        session = importlib.import_module(TRACKERS[self._name].module).Session
        self._tracker: Tracker = session(self._run, self._project, self._id())
        if self._went_back and self._tracker.last_step > self._run.first_step:
            self._tracker.finish({}, 0, will_resume=False)
            self._tracker = session(self._run, self._project, self._id(is_new=True))
        self._went_back = False
        self._say(*self._tracker.notice)
        is_over = False
        while not is_over:
            is_over = self._over.wait(_POLL_S)  # before the lines, which then are all
            while self._send_new():
                pass
        exit_code = (self._stopped or {"exit_code": 1})["exit_code"]
        result = read_json(folder / "result.json") if self._stopped is not None else None
        self._tracker.finish(summary(result or {}), exit_code, will_resume=exit_code == 75)

    def _send_new(self) -> bool:
        """Send what is new; whether there were lines."""
        lines = self._metrics.new(_MOST_LINES)  # before the events: a line comes after its event
        for event in map(json.loads, self._events.new()):
            self._take(event["kind"], event["step"], event["facts"])
        rows: dict[int, dict[str, float]] = {}
        for line in map(json.loads, lines):
            if "step" in line:  # else of another program
                self._newest = line["step"]
                values = chart_values({**line, "eval_s": self._eval_s.get(self._newest)})
                rows.setdefault(self._newest, {}).update(values)
        due = {step: name for step, name in self._samples.items() if step <= self._newest}
        self._samples = {s: name for s, name in self._samples.items() if s not in due}
        batch: list[Row] = []
        for step in sorted({*rows, *due}):
            if step > self._tracker.last_step:
                batch.append((step, rows.get(step, {})))
                if step in due:
                    self._tracker.log(batch)
                    batch = []
                    with self._warned("samples could not be sent: "):
                        self._tracker.log_samples(step, read_samples(self._run.folder, due[step]))
        self._tracker.log(batch)
        return bool(lines)

    def _take(self, kind: str, step: int, facts: Facts) -> None:
        """Note an event, and carry it out if it is of this process."""
        self._events_read += 1
        if kind == "started":
            if self._events_read > self._run.begun:
                os._exit(0)  # a later process has taken over the run, and continues it
            self._stopped = None
            self._samples = {s: n for s, n in self._samples.items() if s <= facts["first_step"]}
        elif kind == "stopped":
            self._stopped = facts
        elif kind == "evaluated" and facts["split"] == "val":
            self._eval_s[step] = facts["seconds"]
        elif kind == "predicted":
            self._samples[step] = facts["file"]
        if self._events_read <= self._done:
            return
        self._done = self._events_read
        if kind == "saved" and self._run.checkpoints != "none":
            best, folder = (self._run.folder / path for path in ("best", f"checkpoints/{facts['folder']}"))
            is_best, is_full = best.resolve() == folder.resolve(), self._run.checkpoints == "all"
            weights = ("model.safetensors", "manifest.json")
            with self._warned("a checkpoint could not be sent: "):
                if folder.is_dir() and (is_full or is_best):  # else the run has removed it
                    files = [path for path in sorted(folder.iterdir()) if is_full or path.name in weights]
                    self._tracker.upload(step, files, is_best)

    def _warned(self, what: str = "") -> AbstractContextManager[None]:
        """Tell an error once; a server that accepts metrics may still refuse files."""

        def warn(error: str) -> None:
            if not self._has_warned:
                self._say("warning", what + error)
            self._has_warned = True

        return caught(warn)

    def _id(self, is_new: bool = False) -> str:
        """The id of the run at this tracker, which is stored in its folder. Touches disk."""
        path = self._run.folder / self._name / "run.json"
        if not is_new:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(read_json(path)["id"])
        path.parent.mkdir(exist_ok=True)
        made = secrets.token_hex(4)
        atomic_write(path, (json.dumps({"id": made}) + "\n").encode())
        return made


def read_samples(run: Path, name: str) -> dict[str, Any]:
    """A file of launcher.run.samples, with paths of its pictures. Reads disk."""
    samples: dict[str, Any] = read_json(run / "samples" / name)
    # As below, and as training/logging/strict_json.py wrote them.
    numbers = ("NaN", "Infinity", "-Infinity")
    rows = [[float(cell) if cell in numbers else cell for cell in row] for row in samples["rows"]]
    pictures = [{**each, "path": str(run / "samples" / each["file"])} for each in samples["pictures"]]
    return {**samples, "rows": rows, "pictures": pictures}


def chart_values(line: Facts) -> dict[str, float]:
    """The numbers of a "train" or "eval" line by chart; unknown ones are left out."""
    if line["kind"] == "eval":
        group = "eval" if line["split"] == "val" else f"eval_{line['split']}"
        values = {f"{group}/{name}": value for name, value in line["metrics"].items()}
        values["time/eval_s"] = line.get("eval_s") if group == "eval" else None
    else:
        values = {name: line.get(key) for key, name in NAMES.items() if key != "eval_s"}
        values |= {f"train/{name}": value for name, value in line.get("parts", {}).items()}
        values |= {f"optim/{key}": line[key] for key in line if key.startswith("lr.")}
        values |= {f"machine/{k}": line[k] for k in line if k.endswith(("_percent", "_celsius"))}
    # NaN and infinities are strings in metrics.jsonl.
    return {name: float(value) for name, value in values.items() if value is not None}


def summary(result: Facts) -> dict[str, Any]:
    names = ("status", "reason", "steps", "epochs", "wall_s", "samples_per_s")
    values = {f"result/{name}": result.get(name) for name in names}
    peaks = (result.get("peak_memory_bytes") or {}).items()
    values |= {f"result/peak_{name}_bytes": value for name, value in peaks}
    values |= {f"best/{name}": value for name, value in (result.get("best") or {}).items()}
    return {name: value for name, value in values.items() if value is not None}


def main() -> None:
    """Follow the run that the file with the number in the first argument describes."""
    ignore_ending()  # they are the run's, which then ends us
    os.nice(5)  # training comes first, also with few cores
    output, writing = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    with open(os.devnull, "wb") as nowhere:  # the user does not need what trackers print
        os.dup2(nowhere.fileno(), 1)
    with os.fdopen(int(sys.argv[1])) as file:
        facts = json.load(file)
    run, over = Run(**{**facts, "folder": Path(facts["folder"])}), threading.Event()

    def follow(track: str) -> None:
        label = TRACKERS[track.partition(":")[0]].label

        def say(*words: str) -> None:
            with writing:
                output.write(json.dumps([label, *words]) + "\n")
                output.flush()

        _Following(run, track, over, say).follow()

    with suppress(OSError):  # a file system without locks
        folder = os.open(run.folder, os.O_RDONLY)
        for _ in range(100):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # an earlier process still sends the rest
                time.sleep(_LOCK_WAIT_S / 100)
    threads = [threading.Thread(target=follow, args=(text,)) for text in run.track]
    for thread in threads:
        thread.start()
    if not os.read(0, 1):  # the run was killed
        threading.Timer(_ORPHAN_S, os._exit, [1]).start()
    over.set()
    for thread in threads:
        thread.join()
    os._exit(0)  # not through an exit of a tracker, which may wait for its server
