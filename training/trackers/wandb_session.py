"""A W&B run opened for one life of a training: on the server where it can be, else in files."""

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
"""How long the server may take to take on a run; later it counts as away."""
_PROJECT = "gearshift"
_REFUSED, _SAID_BYTES = b"Fatal error while uploading", 1 << 20
# What W&B would collect by itself, and is not ours to give: code, its git remote and changes, the
# command line, host and user, packages, what is printed. `x_` is `_` in versions before 0.19.
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
ENVIRONMENT: Mapping[str, str] = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_CONSOLE": "off",
}
"""For the process that W&B runs in; its crash reports would go elsewhere."""


class RefusedError(Exception):
    """The server has taken on the run, and then not all that it was sent."""


class Session:
    """One W&B run that is open. Talks to the network and touches disk; what fails is raised."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        """Opens the run of `plan`, or goes on with it. Imports W&B."""
        import wandb

        self._wandb = wandb
        self._folder = Path(plan["folder"])
        id_ = plan["id"]
        self.is_online, self.why_offline = self._place(plan["mode"])
        earlier = wandb_files.files(self._folder, id_)
        if self.is_online:
            wandb_files.sync(wandb_files.unsent(earlier))
        self.run = self._open(plan, id_)
        if self.is_online:
            wandb_files.mark_sent(wandb_files.unsent(earlier))
            self.last_step = max(self.run.starting_step - 1, 0) if self.run.resumed else 0
        else:
            self.last_step = wandb_files.last_step(earlier)
        self.run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Add to the row of `step`, unless an earlier life of the run has sent it."""
        if step > self.last_step:
            self.run.log(dict(values), step=step)

    def show(self, message: Mapping[str, Any]) -> None:
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

    def keep(self, folder: Path, step: int, whole: bool, is_best: bool) -> None:
        """Upload a checkpoint as an artifact: the whole of it, or its weights alone."""
        artifact = self._wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        names = sorted(path.name for path in folder.iterdir())
        if not whole:
            names = [name for name in ("model.safetensors", "manifest.json") if name in names]
        staged = self._staged(folder, names)
        for name in names:
            artifact.add_file(str(staged / name), name=name, policy="immutable", skip_cache=True)
        aliases = ["latest", f"step-{step}", *(["best"] if is_best else [])]
        self.run.log_artifact(artifact, aliases=aliases)

    def alert(self, title: str, text: str) -> None:
        """Tell whoever wants to be told by W&B."""
        self.run.alert(title=title, text=text, wait_duration=600)

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Put `values` beside the last ones of each metric."""
        self.run.summary.update(dict(values))

    def finish(self, exit_code: int, goes_on: bool) -> None:
        """Close the run, and wait until all is sent; `goes_on`: another life will follow."""
        if goes_on:
            self.run.mark_preempting()
        id_ = self.run.id
        self.run.finish(exit_code=exit_code)
        if self.is_online:
            self._check_sent()
            wandb_files.mark_sent(wandb_files.unsent(wandb_files.files(self._folder, id_)))

    def _check_sent(self) -> None:
        """Raises RefusedError where W&B gave up sending, of which it says no more than a line."""
        sys.stderr.flush()
        if _REFUSED in os.pread(2, _SAID_BYTES, 0):
            raise RefusedError("the server has refused data")

    def _place(self, forced: str | None) -> tuple[bool, str]:
        """Whether to go to the server; if not, why."""
        mode = forced or self._wandb.setup().settings.mode
        if mode in ("offline", "dryrun"):
            return False, "" if forced else "as W&B is set to"
        if self._has_key():
            return True, ""
        if forced:
            raise RuntimeError("not logged in; wandb login does that, or WANDB_API_KEY")
        return False, "not logged in"

    def _has_key(self) -> bool:
        with contextlib.suppress(self._wandb.errors.UsageError, ValueError):
            try:
                return bool(self._wandb.login(prompt=False))
            except TypeError:  # a version that has no such word, and then
                return bool(self._wandb.api.api_key)
        return False

    def _open(self, plan: Mapping[str, Any], id_: str) -> Any:
        known = getattr(self._wandb.Settings, "model_fields", None) or {}
        settings = {key: value for key, value in _SETTINGS.items() if key in known}
        if "x_stats_pid" in known:
            settings["x_stats_pid"] = plan["pid"]
        entity, _, project = (plan["project"] or "").rpartition("/")
        run = self._wandb.init(
            id=id_,
            project=project or os.environ.get("WANDB_PROJECT") or _PROJECT,
            entity=entity or None,
            name=os.environ.get("WANDB_NAME") or plan["name"],
            tags=plan["tags"],
            dir=str(self._folder),
            mode="online" if self.is_online else "offline",
            resume="allow",
            settings=self._wandb.Settings(**settings),
        )
        run.config.update(plan["config"], allow_val_change=True)
        return run

    def _staged(self, folder: Path, names: list[str]) -> Path:
        """Second names of the files, for the run may remove its own before they are sent."""
        (self._folder / "wandb").mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=self._folder / "wandb"))
        for name in names:
            os.link(folder / name, staged / name)
        return staged


def wait_for_turn(file: Any, wait_s: float) -> None:
    """Wait until no other process holds `file`, or so long: one that ends may still write."""
    try:
        import fcntl
    except ImportError:  # Windows: the earlier process has ended by then, as a rule
        return
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return
