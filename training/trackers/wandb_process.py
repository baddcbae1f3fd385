"""The W&B process beside a run: reads messages from its input and carries them out in order."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from training.storage import atomic_write
from training.trackers import wandb_files
from training.trackers.base import failure_of
from training.trackers.metrics_reader import FileReplaced, MetricsReader, chart_values
from training.trackers.wandb_session import Session, wait_for_lock

METRICS = "metrics.jsonl"
_LOCK_WAIT_S = 10.0
_ORPHAN_S = 60.0
"""How long it outlives a killed run, to send the rest."""
_NICE = 5
_PROJECT = "gearshift"
_KILLED: Mapping[str, Any] = {"kind": "end", "exit_code": 1, "will_resume": False, "summary": {}}
"""The meaning of an input that ends without an end message: the run was killed."""
_OPTIONAL = {"predictions": "predictions", "saved": "a checkpoint", "event": "an alert"}
"""Messages that may fail while metrics continue, by kind."""
_ENVIRONMENT = {
    "WANDB_ERROR_REPORTING": "false",  # its crash reports would leave the machine
    "WANDB_CONSOLE": "off",
}
ALERTS = frozenset(
    {
        *("throttled", "pressure", "out_of_memory", "disk_filling"),
        *("straggler", "requeued", "nonfinite", "advice", "control_leak"),
    }
)
"""Events that may need a user's attention."""
Send = Callable[[Mapping[str, Any]], None]


class RowSender:
    """Carries out the messages of one run; raises what fails, except optional messages."""

    def __init__(self, start: Mapping[str, Any], send: Send) -> None:
        self._send = send
        self._session = Session(start)
        if start["went_back"] and self._session.last_step > start["first_step"]:
            self._session.finish(0, will_resume=False)
            self._session = Session({**start, "id": new_id(Path(start["folder"]))})
        session = self._session
        self._metrics = MetricsReader(Path(start["folder"]) / METRICS)
        send(
            {
                "kind": "open",
                "url": session.run.url if session.is_online else None,
                "why": session.why_offline,
                "command": _sync_command(start, session.run.id),
            }
        )

    def handle(self, message: Mapping[str, Any]) -> bool:
        """Carry out one message; False after the last one."""
        kind, session = message["kind"], self._session
        if kind == "lines":
            self._log(message["end"], message.get("times", {}))
        elif kind == "end":
            session.summarize(message["summary"])
            session.finish(message["exit_code"], message["will_resume"])
            return False
        # A server that accepts metrics may still refuse files.
        elif error := failure_of(lambda: self._handle_optional(kind, message)):
            why = f"{_OPTIONAL[kind]} could not be sent: {error}"
            self._send({"kind": "incomplete", "why": why})
        return True

    def _handle_optional(self, kind: str, message: Mapping[str, Any]) -> None:
        session = self._session
        if kind == "predictions":
            session.log_predictions(message)
        elif kind == "saved":
            folder = Path(message["folder"])
            session.upload(folder, message["step"], message["full"], message["is_best"])
        elif kind == "event":
            session.alert(message["title"], message["text"])

    def _log(self, end: int, times: Mapping[str, float]) -> None:
        lines = self._metrics.lines(end)
        for line in lines:
            is_newest = line is lines[-1] and line["kind"] == "train"
            values = chart_values({**line, **times} if is_newest else line)
            self._session.log(line["step"], values)


def new_id(folder: Path) -> str:
    """A new W&B run id for the run in `folder`, stored there. Touches disk."""
    path = folder / "wandb" / "run.json"
    path.parent.mkdir(exist_ok=True)
    made = secrets.token_hex(4)
    atomic_write(path, (json.dumps({"id": made}) + "\n").encode())
    return made


def stored_id(folder: Path) -> str:
    """The W&B run id of the run in `folder`; a new one if it has none. Touches disk."""
    try:
        return str(json.loads((folder / "wandb" / "run.json").read_bytes())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return new_id(folder)


def main() -> None:
    """Serve one run, from the start message on the first line of the input to its end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)  # they are the run's, which then ends us
    if hasattr(os, "nice"):
        os.nice(_NICE)  # training comes first, also with few cores
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # The user does not need what W&B prints; but it reports some failures in no other way.
    printed, path = tempfile.mkstemp()
    os.unlink(path)
    os.dup2(printed, 1)
    os.dup2(printed, 2)

    def send(message: Mapping[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    if error := failure_of(lambda: _serve(send)):
        send({"kind": "failed", "why": error})
        os._exit(1)  # not through W&B's own exit, which may wait for its server
    send({"kind": "done"})


def _serve(send: Send) -> None:
    start = json.loads(sys.stdin.buffer.readline())
    messages: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    threading.Thread(target=_receive, args=(messages,), daemon=True).start()
    folder = Path(start["folder"])
    os.environ.update(_ENVIRONMENT)
    os.environ["WANDB_DIR"] = str(folder)  # else its commands log in the working directory
    entity, _, project = (start["project"] or "").rpartition("/")
    start["entity"] = entity or None
    start["project"] = project or os.environ.get("WANDB_PROJECT") or _PROJECT
    start["name"] = os.environ.get("WANDB_NAME") or start["name"]
    (folder / "wandb").mkdir(exist_ok=True)
    with (folder / "wandb" / ".lock").open("w") as lock:
        wait_for_lock(lock, _LOCK_WAIT_S)
        start["id"] = stored_id(folder)
        if start["completes"] and not _lacks_lines(folder, start["id"]):
            command = _sync_command(start, start["id"])
            send({"kind": "open", "url": None, "why": "", "command": command})
            return
        try:
            sender = RowSender(start, send)
            while sender.handle(messages.get()):
                pass
        except FileReplaced:
            os._exit(0)  # a later process has taken over the run, and continues it at W&B


def _sync_command(start: Mapping[str, Any], id_: str) -> str:
    """The command that sends what is recorded offline."""
    paths = wandb_files.files(Path(start["folder"]), id_)
    return wandb_files.sync_command(wandb_files.unsent(paths), start["sync_command"])


def _lacks_lines(folder: Path, id_: str) -> bool:
    """Whether W&B's files lack lines of the run."""
    path = folder / METRICS
    lines = MetricsReader(path).lines(path.stat().st_size)
    last = max((line["step"] for line in lines), default=0)
    return wandb_files.last_step(wandb_files.files(folder, id_)) < last


def _receive(messages: SimpleQueue[Mapping[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        messages.put(json.loads(line))
    messages.put(_KILLED)  # not read if the end message came before
    time.sleep(_ORPHAN_S)
    os._exit(1)


if __name__ == "__main__":
    main()
