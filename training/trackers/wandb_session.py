"""An open W&B run of one generation of a training: on the server if possible, else offline."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.trackers import wandb_files
from training.trackers.metrics_reader import STEP

_INIT_S = 30.0
"""How long the server may take to open a run; later it counts as unreachable."""
_REFUSED, _PRINTED_BYTES = b"Fatal error while uploading", 1 << 20
# Data that W&B would collect by itself and that must not leave the machine: code, its git remote
# and changes, command line, host and user, packages, output. `x_` is `_` in versions before 0.19.
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


class RefusedError(Exception):
    """The server opened the run, and then refused part of its data."""


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
            self._check_sent()
            wandb_files.mark_sent(wandb_files.unsent(wandb_files.files(self._folder, id_)))

    def _check_sent(self) -> None:
        """Raise RefusedError if W&B has given up sending; it only prints a line then."""
        sys.stderr.flush()
        if _REFUSED in os.pread(2, _PRINTED_BYTES, 0):
            raise RefusedError("the server has refused data")

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
        known = getattr(self._wandb.Settings, "model_fields", None) or {}
        settings = {key: value for key, value in _SETTINGS.items() if key in known}
        if "x_stats_pid" in known:
            settings["x_stats_pid"] = start["pid"]
        run = self._wandb.init(
            id=start["id"],
            project=start["project"],
            entity=start["entity"],
            name=start["name"],
            tags=start["tags"],
            dir=str(self._folder),
            mode="online" if self.is_online else "offline",
            resume="allow",
            settings=self._wandb.Settings(**settings),
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


def wait_for_lock(file: Any, wait_s: float) -> None:
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
