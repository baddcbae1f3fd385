"""The process beside a run that W&B lives in: told by lines on its input what there is to send."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from training.storage import atomic_write
from training.trackers import wandb_files
from training.trackers.metrics_reader import MetricsReader, Replaced, row
from training.trackers.wandb_session import Session, wait_for_turn

METRICS = "metrics.jsonl"
_TURN_S = 10.0
_ALONE_S = 60.0
"""How long it lives on without the run, which may have been killed: to send what is left."""
_NICE = 5
_GONE: Mapping[str, Any] = {"kind": "end", "exit_code": 1, "goes_on": False, "summary": {}}
"""What the end of the input means, where nobody said how the run ended: it was killed."""
_EXTRAS = {"predictions": "predictions", "saved": "a checkpoint", "event": "an alert"}
"""What is sent beside rows, and may fail without them."""
ALERTS = frozenset(
    {
        *("throttled", "pressure", "out_of_memory", "disk_filling"),
        *("straggler", "requeued", "nonfinite", "control_leak"),
    }
)
"""Events that somebody may want to be called for."""


class Process:
    """Carries out messages one after the other; what fails is raised."""

    def __init__(self, plan: Mapping[str, Any], tell: Any) -> None:
        self._tell = tell
        self._session = Session(plan)
        if plan["went_back"] and self._session.last_step > plan["first_step"]:
            self._session.finish(0, goes_on=False)
            self._session = Session({**plan, "id": new_id(Path(plan["folder"]))})
        session = self._session
        self._metrics = MetricsReader(Path(plan["folder"]) / METRICS)
        tell(
            {
                "kind": "open",
                "url": session.run.url if session.is_online else None,
                "why": session.why_offline,
                "command": _command(plan, session.run.id),
            }
        )

    def do(self, message: Mapping[str, Any]) -> bool:
        """Carry out one message; whether another may follow."""
        kind, session = message["kind"], self._session
        if kind == "lines":
            self._send(message["upto"], message.get("spent", {}))
        elif kind == "end":
            session.summarize(message["summary"])
            session.finish(message["exit_code"], message["goes_on"])
            return False
        else:
            try:
                self._add(kind, message)
            except Exception as fault:  # a server that takes rows may yet refuse files
                self._tell(
                    {"kind": "lacks", "why": f"{_EXTRAS[kind]} could not be sent: {why(fault)}"}
                )
        return True

    def _add(self, kind: str, message: Mapping[str, Any]) -> None:
        session = self._session
        if kind == "predictions":
            session.show(message)
        elif kind == "saved":
            folder = Path(message["folder"])
            session.keep(folder, message["step"], message["whole"], message["is_best"])
        elif kind == "event":
            session.alert(message["title"], message["text"])

    def _send(self, upto: int, spent: Mapping[str, float]) -> None:
        lines = self._metrics.lines(upto)
        for line in lines:
            is_newest = line is lines[-1] and line["kind"] == "train"
            self._session.log(line["step"], row({**line, **spent} if is_newest else line))


def new_id(folder: Path) -> str:
    """A new W&B run for the run in `folder`, which keeps its id. Touches disk."""
    path = folder / "wandb" / "run.json"
    path.parent.mkdir(exist_ok=True)
    made = secrets.token_hex(4)
    atomic_write(path, (json.dumps({"id": made}) + "\n").encode())
    return made


def known_id(folder: Path) -> str:
    """The id that the run in `folder` has at W&B, made where it has none. Touches disk."""
    try:
        return str(json.loads((folder / "wandb" / "run.json").read_bytes())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return new_id(folder)


def main() -> None:
    """Serve one run, from the plan on the first line of the input to its end."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)  # they are the run's, which then tells us
    if hasattr(os, "nice"):
        os.nice(_NICE)  # training comes first, also where cores are few
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # What W&B prints is not for the run; but it tells of faults in no other way.
    said, path = tempfile.mkstemp()
    os.unlink(path)
    os.dup2(said, 1)
    os.dup2(said, 2)

    def tell(message: Mapping[str, Any]) -> None:
        told.write(json.dumps(message) + "\n")
        told.flush()

    try:
        _serve(tell)
        tell({"kind": "done"})
    except Replaced:
        os._exit(0)  # another process has taken the run over, and goes on with it at W&B, too
    except Exception as fault:  # whatever W&B raises, the run goes on without it
        tell({"kind": "failed", "why": why(fault)})
        os._exit(1)  # not through W&B's own exit, which may wait for its server


def _serve(tell: Any) -> None:
    plan = json.loads(sys.stdin.buffer.readline())
    inbox: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
    threading.Thread(target=_receive, args=(inbox,), daemon=True).start()
    folder = Path(plan["folder"])
    os.environ["WANDB_DIR"] = str(folder)  # else its commands log where one happens to be
    (folder / "wandb").mkdir(exist_ok=True)
    with (folder / "wandb" / ".lock").open("w") as lock:
        wait_for_turn(lock, _TURN_S)
        plan["id"] = known_id(folder)
        if plan["completes"] and not _lacks(folder, plan):
            command = _command(plan, plan["id"])
            tell({"kind": "open", "url": None, "why": "", "command": command})
            return
        process = Process(plan, tell)
        while process.do(inbox.get()):
            pass


def _command(plan: Mapping[str, Any], id_: str) -> str:
    """What a person types to send what is in files only."""
    paths = wandb_files.files(Path(plan["folder"]), id_)
    return wandb_files.sync_command(wandb_files.unsent(paths), plan["send"])


def _lacks(folder: Path, plan: Mapping[str, Any]) -> bool:
    """Whether W&B's files lack rows of the run."""
    path = folder / METRICS
    lines = MetricsReader(path).lines(path.stat().st_size)
    last = max((line["step"] for line in lines), default=0)
    return wandb_files.last_step(wandb_files.files(folder, plan["id"])) < last


def _receive(inbox: SimpleQueue[Mapping[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        inbox.put(json.loads(line))
    inbox.put(_GONE)  # left unread where the end was told
    time.sleep(_ALONE_S)
    os._exit(1)


def why(fault: BaseException) -> str:
    """A fault in one line, as far as it may be told."""
    first = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {first[0]}" if first else type(fault).__name__


if __name__ == "__main__":
    main()
