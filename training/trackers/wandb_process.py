"""The W&B process beside a run: reads messages from its input and carries them out in order."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from training.storage import atomic_write
from training.trackers import wandb_files
from training.trackers.base import failure_of
from training.trackers.metrics_reader import STEP, FileReplaced, MetricsReader, chart_values

METRICS = "metrics.jsonl"
_INIT_S = 30.0
"""How long the server may take to open a run; later it counts as unreachable."""
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
# Data that W&B would collect by itself and that must not leave the machine: code, its git remote
# and changes, command line, host and user, packages, output.
_SETTINGS: Mapping[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,
    "init_timeout": _INIT_S,
}
ALERTS = frozenset(
    {
        *("throttled", "pressure", "out_of_memory", "disk_filling"),
        *("straggler", "requeued", "nonfinite", "advice", "control_leak"),
    }
)
"""Events that may need a user's attention."""
Send = Callable[[Mapping[str, Any]], None]


class Session:
    """An open W&B run. Uses the network and the disk; raises what fails."""

    def __init__(self, start: Mapping[str, Any]) -> None:
        """Open or resume the run of a start message. Imports W&B."""
        import wandb

        self._wandb = wandb
        self._folder = Path(start["folder"])
        earlier = wandb_files.files(self._folder, start["id"])
        self.is_online, self.why_offline = self._choose_mode(start["mode"])
        if self.is_online:
            wandb_files.sync(wandb_files.unsent(earlier))
        self.run = self._open(start)
        if self.is_online:
            wandb_files.mark_sent(wandb_files.unsent(earlier))
            self.last_step = max(self.run.starting_step - 1, 0) if self.run.resumed else 0
        else:
            self.last_step = wandb_files.last_step(earlier)
        self.run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add `values` to the row of `step`, unless an earlier generation has sent it."""
        if step > self.last_step:
            self.run.log(dict(values), step=step)

    def log_predictions(self, message: Mapping[str, Any]) -> None:
        """Add a table and pictures of predictions to the row of their step."""
        values: dict[str, Any] = {
            "samples/predictions": self._wandb.Table(
                columns=list(message["columns"]), data=[list(row) for row in message["rows"]]
            )
        }
        with tempfile.TemporaryDirectory() as folder:  # W&B copies what is logged
            for picture in message["pictures"]:
                path = Path(folder) / f"{len(values)}.png"
                path.write_bytes(b64decode(picture["png"]))
                name = f"samples/{picture['name']}"
                values[name] = self._wandb.Image(str(path), caption=picture["caption"])
            self.log(message["step"], {STEP: message["step"], **values})

    def upload(self, folder: Path, step: int, full: bool, is_best: bool) -> None:
        """Upload a checkpoint as an artifact: all files if `full`, else the weights only."""
        artifact = self._wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        names = sorted(path.name for path in folder.iterdir())
        if not full:
            names = [name for name in ("model.safetensors", "manifest.json") if name in names]
        staged = self._staged(folder, names)
        for name in names:
            artifact.add_file(str(staged / name), name=name, policy="immutable", skip_cache=True)
        aliases = ["latest", f"step-{step}", *(["best"] if is_best else [])]
        self.run.log_artifact(artifact, aliases=aliases)

    def alert(self, title: str, text: str) -> None:
        """Send a W&B alert."""
        self.run.alert(title=title, text=text, wait_duration=600)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add `values` to the summary."""
        self.run.summary.update(dict(values))

    def finish(self, exit_code: int, will_resume: bool) -> None:
        """Close the run and wait until all is sent; `will_resume`: mark it as preempted."""
        if will_resume:
            self.run.mark_preempting()
        id_ = self.run.id
        self.run.finish(exit_code=exit_code)
        if self.is_online:
            wandb_files.mark_sent(wandb_files.unsent(wandb_files.files(self._folder, id_)))

    def _choose_mode(self, forced: str | None) -> tuple[bool, str]:
        """Whether to use the server, and why not."""
        mode = forced or self._wandb.setup().settings.mode
        if mode in ("offline", "dryrun"):
            return False, "" if forced else "W&B is set to offline"
        if self._is_logged_in():
            return True, ""
        if forced:
            raise RuntimeError("not logged in; run wandb login, or set WANDB_API_KEY")
        return False, "not logged in"

    def _is_logged_in(self) -> bool:
        with contextlib.suppress(self._wandb.errors.UsageError, ValueError):
            try:
                return bool(self._wandb.login(prompt=False))
            except TypeError:  # a version without the parameter `prompt`
                return bool(self._wandb.api.api_key)
        return False

    def _open(self, start: Mapping[str, Any]) -> Any:
        settings = {**_SETTINGS, "x_stats_pid": start["pid"]}
        known = self._wandb.Settings.model_fields  # which differ between versions
        run = self._wandb.init(
            id=start["id"],
            project=start["project"],
            entity=start["entity"],
            name=start["name"],
            tags=start["tags"],
            dir=str(self._folder),
            mode="online" if self.is_online else "offline",
            resume="allow",
            settings=self._wandb.Settings(**{k: v for k, v in settings.items() if k in known}),
        )
        run.config.update(start["config"], allow_val_change=True)
        return run

    def _staged(self, folder: Path, names: list[str]) -> Path:
        """Hard links to the files: the run may remove its own before they are sent."""
        (self._folder / "wandb").mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=self._folder / "wandb"))
        for name in names:
            os.link(folder / name, staged / name)
        return staged


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
            text = f"{_OPTIONAL[kind]} could not be sent: {error}"
            self._send({"kind": "incomplete", "why": text})
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
    with open(os.devnull, "wb") as nowhere:  # the user does not need what W&B prints
        os.dup2(nowhere.fileno(), 1)

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
        _wait_for_lock(lock, _LOCK_WAIT_S)
        start["id"] = stored_id(folder)
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


def _wait_for_lock(file: Any, wait_s: float) -> None:
    """Wait at most `wait_s` for the lock on `file`: an earlier process may still write."""
    try:
        import fcntl
    except ImportError:  # Windows: the earlier process has usually ended by then
        return
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


if __name__ == "__main__":
    main()
