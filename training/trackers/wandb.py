"""W&B: its run, its files in the run folder, and what sends those."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.callbacks.base import Callback
from training.trackers.base import TrackedRun, TrackerError
from training.trackers.metrics_reader import STEP
from training.trackers.process_tracker import ProcessTracker, Service
from training.trackers.session import Row, checkpoint_files, picture_files, serve

SERVICE = Service("W&B", "training.trackers.wandb", records_offline=True)
_INIT_S = 30.0
"""How long the server may take to open a run; later it counts as unreachable."""
_PROJECT = "gearshift"
_ENVIRONMENT = {
    "WANDB_ERROR_REPORTING": "false",  # its crash reports would leave the machine
    "WANDB_CONSOLE": "off",
    "WANDB_DIR": "{folder}",  # else its commands log in the working directory
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
# A .wandb file: blocks of 32 KiB, the first one after a header of 7 bytes; each block has records
# with a checksum, a length and a type. Source: LevelDB, doc/log_format.md, and W&B's transaction
# log.
_BLOCK, _RECORD_HEAD = 32768, struct.Struct("<IHB")
_FILE_HEAD = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SYNC_S = 120.0


def tracker(run: TrackedRun, detail: str | None) -> Callback:
    """The callback for the project `detail`; None: the project that W&B is configured for."""
    return ProcessTracker(run, SERVICE, detail)


def files(folder: Path, run_id: str) -> list[Path]:
    """The .wandb files of the run below `folder`/wandb, oldest first. Touches disk."""
    paths = (folder / "wandb").glob(f"*run-*-{run_id}/run-{run_id}.wandb")
    return sorted(paths, key=lambda path: path.parent.name.removeprefix("offline-"))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete rows of the history in a .wandb file. Imports W&B's protocol."""
    import wandb.proto.wandb_internal_pb2 as generated

    protocol: Any = generated  # its classes are made when it is imported
    for data in _records(path.read_bytes()):
        record = protocol.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {
                "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items
            }


def _records(data: bytes) -> Iterator[bytes]:
    """Each record of a file, without a last one that is cut off."""
    at, parts = _FILE_HEAD, b""
    while at + _RECORD_HEAD.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEAD.size:
            at += left
            continue
        _, length, kind = _RECORD_HEAD.unpack_from(data, at)
        at += _RECORD_HEAD.size
        part = data[at : at + length]
        if len(part) < length or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        at += length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts


def _unsent(folder: Path, run_id: str) -> list[Path]:
    """The files that are not known to be on the server. Touches disk."""
    return [path for path in files(folder, run_id) if not _marker(path).exists()]


def _marker(path: Path) -> Path:
    """The file that lets `wandb sync` skip `path`."""
    return path.with_name(f"{path.name}.synced")


def _sync_arguments(paths: Sequence[Path]) -> list[str] | None:
    """What `wandb` gets to send these files. Imports W&B.

    None unless all are offline: `wandb sync` would send once more what the server has of a file
    that was written online, and the order of rows could break.
    """
    if not paths or not all(path.parent.name.startswith("offline-") for path in paths):
        return None
    from wandb.cli.cli import cli

    # Older versions need --append for several files of one run; newer ones detect it.
    has_append = any(option.name == "append" for option in cli.commands["sync"].params)
    more = ["--append"] if has_append and len(paths) > 1 else []
    return ["sync", *more, *(str(path.parent) for path in paths)]


class Session:
    """An open W&B run. Uses the network and the disk; raises what fails."""

    def __init__(self, start: dict[str, Any]) -> None:
        """Open or resume the run of a start message. Imports W&B."""
        self._folder = Path(start["folder"])
        environment = start["environment"]
        entity, _, project = (start["project"] or "").rpartition("/")
        start["entity"] = entity or None
        start["project"] = project or environment.get("WANDB_PROJECT") or _PROJECT
        start["name"] = environment.get("WANDB_NAME") or start["name"]
        import wandb

        self._wandb = wandb
        earlier = files(self._folder, start["id"])
        unsent = _unsent(self._folder, start["id"])
        self.is_online, self.why_offline = self._choose_mode(start["mode"])
        if self.is_online and (arguments := _sync_arguments(unsent)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                command = [sys.executable, "-m", "wandb", *arguments]
                none = subprocess.DEVNULL
                subprocess.run(command, stdin=none, capture_output=True, timeout=_SYNC_S)
        self.run = self._open(start)
        if self.is_online:
            for path in unsent:
                _marker(path).touch()
            self.last_step = max(self.run.starting_step - 1, 0) if self.run.resumed else 0
        else:
            self.last_step = max((r["_step"] for path in earlier for r in rows(path)), default=0)
        self.run.define_metric("*", step_metric=STEP)
        arguments = _sync_arguments(_unsent(self._folder, self.run.id))
        self._command = shlex.join(["wandb", *arguments]) if arguments else start["sync_command"]

    def address(self) -> Mapping[str, Any]:
        """The address of the W&B run, or what sends its files."""
        url = self.run.url if self.is_online else None
        return {"url": url, "why": self.why_offline, "command": self._command}

    def log(self, rows: Sequence[Row]) -> None:
        """Add rows to the history."""
        for step, values in rows:
            self.run.log(dict(values), step=step)

    def log_predictions(self, message: Mapping[str, Any]) -> None:
        """Add a table and pictures of predictions to the row of their step."""
        values: dict[str, Any] = {
            "samples/predictions": self._wandb.Table(
                columns=list(message["columns"]), data=[list(row) for row in message["rows"]]
            )
        }
        with picture_files(message) as pictures:
            for picture, path in pictures:
                image = self._wandb.Image(path, caption=picture["caption"])
                values[f"samples/{picture['name']}"] = image
            self.run.log({STEP: message["step"], **values}, step=message["step"])

    def upload(self, message: Mapping[str, Any]) -> None:
        """Upload a checkpoint as an artifact: all files if it is "full", else the weights only."""
        folder = Path(message["folder"])
        artifact = self._wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        # Hard links to the files: the run may remove its own before they are sent.
        wandb_folder = self._folder / "wandb"
        wandb_folder.mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=wandb_folder))
        for path in checkpoint_files(message):
            os.link(path, kept := staged / path.name)
            artifact.add_file(str(kept), name=path.name, policy="immutable", skip_cache=True)
        aliases = ["latest", f"step-{message['step']}", *["best"] * message["is_best"]]
        self.run.log_artifact(artifact, aliases=aliases)

    def alert(self, message: Mapping[str, Any]) -> None:
        """Send a W&B alert."""
        self.run.alert(title=message["title"], text=message["text"], wait_duration=600)

    def finish(self, summary: Mapping[str, Any], exit_code: int, will_resume: bool) -> None:
        """Close the run and wait until all is sent; `will_resume`: mark it as preempted."""
        self.run.summary.update(dict(summary))
        if will_resume:
            self.run.mark_preempting()
        id_ = self.run.id
        self.run.finish(exit_code=exit_code)
        if self.is_online:
            for path in _unsent(self._folder, id_):
                _marker(path).touch()

    def _choose_mode(self, forced: str | None) -> tuple[bool, str]:
        """Whether to use the server, and why not."""
        mode = forced or self._wandb.setup().settings.mode
        if mode in ("offline", "dryrun"):
            return False, "" if forced else "W&B is set to offline"
        if self._is_logged_in():
            return True, ""
        if forced:
            raise TrackerError("not logged in; run wandb login, or set WANDB_API_KEY")
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


if __name__ == "__main__":
    serve("wandb", Session, _ENVIRONMENT)
