"""The process beside a run: follows its metrics and events, and sends them to the trackers."""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import secrets
import sys
import threading
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
_ORPHAN_S = 60.0  # how long the process sends the rest of a killed run, and a later one waits for it
EVENTS, _MOST_LINES = "events.jsonl", 5000
Row = tuple[int, Numbers]
"""A step, and its numbers by chart."""


@dataclass(frozen=True)
class Run:
    folder: Path
    track: Sequence[str]
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
    """The whole lines of a growing file of JSON, each once. Reads disk."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def new(self, most: int | None = None) -> list[Any]:
        lines: list[bytes] = []
        with suppress(FileNotFoundError), open_to_read(self._path) as file:
            file.seek(self._at)
            lines += islice(lines_of(file), most)
        self._at += sum(map(len, lines))
        return list(map(json.loads, lines))


class _Following:
    """Sends one run to one tracker, from the first line that it lacks to the end of the run."""

    def __init__(self, run: Run, track: str, over: threading.Event, say: Callable[..., None]) -> None:
        """`say` takes kind and text."""
        self._run, self._over, self._say = run, over, say
        self._name, _, self._project = track.partition(":")
        self._went_back, self._has_warned, self._newest_saved = run.went_back, False, run.first_step

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
        """Open the run at the tracker; send what it lacks, and what comes until the run is over."""
        folder, is_over, newest = self._run.folder, False, 0
        metrics, events, lines = Lines(folder / "metrics.jsonl"), Lines(folder / EVENTS), list[Any]()
        stopped: Facts | None = None
        samples, eval_s = dict[int, str](), dict[int, float]()
        tracker = self._open()
        self._say(*tracker.notice)
        while lines or not is_over:
            if not lines:
                is_over = self._over.wait(_POLL_S)  # before the lines, which then are all
            lines = metrics.new(_MOST_LINES)  # before the events: a line comes after its event
            for event in events.new():
                kind, step, facts = event["kind"], event["step"], event["facts"]
                if kind in ("started", "stopped"):
                    stopped = facts if kind == "stopped" else None
                elif kind == "evaluated" and facts["split"] == "val":
                    eval_s[step] = facts["seconds"]
                elif kind == "predicted":
                    samples[step] = facts["file"]
                elif kind == "saved" and step > self._newest_saved:
                    self._newest_saved = step
                    self._upload(tracker, step, folder / "checkpoints" / facts["folder"])
            rows: dict[int, dict[str, float]] = {}
            for line in lines:
                if "step" in line:  # else of another program
                    newest = line["step"]
                    values = chart_values({**line, "eval_s": eval_s.get(newest)})
                    rows.setdefault(newest, {}).update(values)
            batch: list[Row] = []
            for step in sorted({*rows, *(step for step in samples if step <= newest)}):
                name = samples.pop(step, None)
                if step > tracker.last_step:
                    batch.append((step, rows.get(step, {})))
                    if name is not None:
                        tracker.log(batch)
                        batch = []
                        with self._warned("samples could not be sent: "):
                            table = read_json(folder / "samples" / name)
                            for picture in table["pictures"]:
                                picture["path"] = str(folder / "samples" / Path(picture["file"]).name)
                            tracker.log_samples(step, table)
            tracker.log(batch)
        exit_code = 1 if stopped is None else stopped["exit_code"]
        result = {} if stopped is None else read_json(folder / "result.json")
        tracker.finish(summary(result), exit_code, will_resume=exit_code == 75)

    def _open(self) -> Tracker:
        """The run at the tracker; another one there if the user let the run go back."""
        session = importlib.import_module(TRACKERS[self._name].module).Session
        tracker: Tracker = session(self._run, self._project, self._id())
        if self._went_back and tracker.last_step > self._run.first_step:
            tracker.finish({}, 0, will_resume=False)
            tracker = session(self._run, self._project, self._id(is_new=True))
        self._went_back = False
        return tracker

    def _id(self, is_new: bool = False) -> str:
        """The id of the run at this tracker, which is stored in its folder. Touches disk."""
        path = self._run.folder / self._name / "run.json"
        if not is_new:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(read_json(path)["id"])
        path.parent.mkdir(exist_ok=True)
        made = secrets.token_hex(4)
        atomic_write(path, json.dumps({"id": made}).encode())
        return made

    def _upload(self, tracker: Tracker, step: int, folder: Path) -> None:
        is_best = (self._run.folder / "best").resolve() == folder.resolve()
        is_full = self._run.checkpoints == "all"
        with self._warned("a checkpoint could not be sent: "):
            if folder.is_dir() and (is_full or (is_best and self._run.checkpoints == "best")):
                weights = ("model.safetensors", "manifest.json")
                files = [path for path in sorted(folder.iterdir()) if is_full or path.name in weights]
                tracker.upload(step, files, is_best)

    def _warned(self, what: str = "") -> AbstractContextManager[None]:
        """Tell the first error; a server that accepts metrics may still refuse files."""

        def warn(error: str) -> None:
            if not self._has_warned:
                self._say("warning", what + error)
            self._has_warned = True

        return caught(warn)


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
    output = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # the user does not need what trackers print
        os.dup2(nowhere.fileno(), 1)
    with os.fdopen(int(sys.argv[1])) as file:
        facts = json.load(file)
    run, over = Run(**{**facts, "folder": Path(facts["folder"])}), threading.Event()

    def follow(track: str) -> None:
        label = TRACKERS[track.partition(":")[0]].label

        def say(kind: str, text: str) -> None:
            with suppress(BrokenPipeError):  # the run was killed
                os.write(output, json.dumps([label, kind, text]).encode() + b"\n")

        _Following(run, track, over, say).follow()

    with suppress(OSError):  # a file system without locks; else an earlier process sends the rest first
        fcntl.flock(os.open(run.folder, os.O_RDONLY), fcntl.LOCK_EX)
    threads = [threading.Thread(target=follow, args=(text,)) for text in run.track]
    for thread in threads:
        thread.start()
    if not os.read(0, 1):  # the run was killed
        threading.Timer(_ORPHAN_S, os._exit, [1]).start()
    over.set()
    for thread in threads:
        thread.join()
    os._exit(0)  # not through an exit of a tracker, which may wait for its server
