"""The process beside a run that feeds one tracker: reads messages and carries them out in order."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from training.callbacks.preemption import ignore_ending
from training.storage import atomic_write, open_regular, read_json
from training.trackers.base import failure_of
from training.trackers.metrics_reader import METRICS, FileReplaced, MetricsReader, chart_values

_LOCK_WAIT_S = 10.0
_ORPHAN_S = 60.0
"""How long it outlives a killed run, to send the rest."""
_NICE = 5
_KILLED: Mapping[str, Any] = {"kind": "end", "exit_code": 1, "will_resume": False, "summary": {}}
"""The end of a run that was killed."""
Send = Callable[[Mapping[str, Any]], None]
Row = tuple[int, Mapping[str, float]]
"""A step, and its numbers by chart."""


class Session(Protocol):
    """A run that is open at a tracker. Uses the network and the disk; raises what fails."""

    last_step: int
    """The newest step that the tracker had when the run was opened; 0: none."""

    def address(self) -> Mapping[str, Any]:
        """`url` of the run; None: it is recorded offline, `why`, and `command` sends it."""
        ...

    def log(self, rows: Sequence[Row]) -> None:
        """Add rows of later steps than `last_step`."""
        ...

    def log_predictions(self, message: Mapping[str, Any]) -> None:
        """Add a table (`columns`, `rows`) and `pictures` (name, caption, base64 PNG) to `step`.

        It is later than `last_step`.
        """
        ...

    def upload(self, message: Mapping[str, Any]) -> None:
        """Upload the checkpoint in `folder`: all files if it is "full", else the weights only."""
        ...

    def alert(self, message: Mapping[str, Any]) -> None:
        """Show an event: `title` and `text`."""
        ...

    def finish(self, summary: Mapping[str, Any], exit_code: int, will_resume: bool) -> None:
        """Add the results of the run, close it, and wait until all is sent."""
        ...


def checkpoint_files(message: Mapping[str, Any]) -> list[Path]:
    """The files to upload for a message "saved". Touches disk."""
    files = sorted(Path(message["folder"]).iterdir())
    weights = ("model.safetensors", "manifest.json")
    return [path for path in files if message["full"] or path.name in weights]


@contextmanager
def picture_files(message: Mapping[str, Any]) -> Iterator[list[tuple[Mapping[str, Any], str]]]:
    """The pictures of a message "predictions", each with a PNG file. Touches disk.

    The files are deleted afterwards: trackers copy what is logged.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for number, picture in enumerate(message["pictures"]):
            path = Path(folder) / f"{number}.png"
            path.write_bytes(b64decode(picture["png"]))
            found.append((picture, str(path)))
        yield found


Open = Callable[[dict[str, Any]], Session]
"""Opens or resumes the run of a start message: `id`, `name`, `project`, `config`, `folder`,
`environment` (variables) …"""


class RowSender:
    """Carries out the messages of one run; raises what fails, except optional messages."""

    def __init__(self, name: str, start: Mapping[str, Any], open_run: Open, send: Send) -> None:
        self._send, folder = send, Path(start["folder"])
        self._session = open_run({**start, "id": stored_id(folder, name)})
        if start["went_back"] and self._session.last_step > start["first_step"]:
            self._session.finish({}, 0, will_resume=False)
            self._session = open_run({**start, "id": new_id(folder, name)})
        self._metrics = MetricsReader(folder / METRICS)
        send({"kind": "open", **self._session.address()})

    def handle(self, message: Mapping[str, Any]) -> bool:
        """Carry out one message; False after the last one."""
        kind, session = message["kind"], self._session
        if kind == "lines":
            self._log(message["end"], message.get("times", {}))
        elif kind == "end":
            session.finish(message["summary"], message["exit_code"], message["will_resume"])
            return False
        elif kind != "predictions" or message["step"] > session.last_step:
            # A server that accepts metrics may still refuse files.
            what, carry_out = {
                "predictions": ("predictions", session.log_predictions),
                "saved": ("a checkpoint", session.upload),
                "event": ("an alert", session.alert),
            }[kind]
            if error := failure_of(lambda: carry_out(message)):
                text = f"{what} could not be sent: {error}"
                self._send({"kind": "incomplete", "why": text})
        return True

    def _log(self, end: int, times: Mapping[str, float]) -> None:
        lines, rows = self._metrics.lines(end), list[Row]()
        for line in lines:
            is_newest = line is lines[-1] and line["kind"] == "train"
            values = chart_values({**line, **times} if is_newest else line)
            if line["step"] > self._session.last_step:  # else an earlier generation has sent it
                rows.append((line["step"], values))
        if rows:
            self._session.log(rows)


def new_id(folder: Path, name: str) -> str:
    """A new id at tracker `name` for the run in `folder`, stored there. Touches disk."""
    path = folder / name / "run.json"
    path.parent.mkdir(exist_ok=True)
    made = secrets.token_hex(4)
    atomic_write(path, (json.dumps({"id": made}) + "\n").encode())
    return made


def stored_id(folder: Path, name: str) -> str:
    """The id at tracker `name` of the run in `folder`; a new one if it has none. Touches disk."""
    try:
        return str(read_json(folder / name / "run.json")["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return new_id(folder, name)


def serve(
    name: str,
    open_run: Open,
    environment: Mapping[str, str],
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Serve one run, from the start message on the first line of the input to its end.

    Variables of `environment` are set first, with the run folder for {folder}; those of `defaults`
    if the user has not set them.
    """
    ignore_ending()  # they are the run's, which then ends us
    if hasattr(os, "nice"):
        os.nice(_NICE)  # training comes first, also with few cores
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "wb") as nowhere:  # the user does not need what trackers print
        os.dup2(nowhere.fileno(), 1)

    def send(message: Mapping[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    def run() -> None:
        start = json.loads(sys.stdin.buffer.readline())
        for key, value in environment.items():
            os.environ[key] = value.format(folder=start["folder"])
        for key, value in (defaults or {}).items():
            os.environ.setdefault(key, value)
        _serve(name, {**start, "environment": dict(os.environ)}, open_run, send)

    if error := failure_of(run):
        send({"kind": "failed", "why": error})
        os._exit(1)  # not through an exit of the tracker, which may wait for its server
    send({"kind": "done"})


def _serve(name: str, start: dict[str, Any], open_run: Open, send: Send) -> None:
    messages: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    threading.Thread(target=_receive, args=(messages,), daemon=True).start()
    own = Path(start["folder"]) / name
    own.mkdir(exist_ok=True)
    with os.fdopen(open_regular(own / ".lock", os.O_WRONLY | os.O_CREAT), "w") as lock:
        _wait_for_lock(lock, _LOCK_WAIT_S)
        try:
            sender = RowSender(name, start, open_run, send)
            while sender.handle(messages.get()):
                pass
        except FileReplaced:
            os._exit(0)  # a later process has taken over the run, and continues it


def _wait_for_lock(file: Any, wait_s: float) -> None:
    """Wait at most `wait_s` for the lock on `file`: an earlier process may still write."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return


def _receive(messages: SimpleQueue[Mapping[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        messages.put(json.loads(line))
    messages.put(_KILLED)  # not read if the end message came before
    time.sleep(_ORPHAN_S)
    os._exit(1)
