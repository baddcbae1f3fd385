"""W&B: its run on a server, or in its own files in the run folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.callbacks.base import Facts
from training.logging.printable import TrackerError, describe
from training.settings import nested
from training.trackers.follow import Row, Run, Tracker

STEP = "global_step"
"""The x axis of all charts."""
_INIT_S = 30.0  # How long the server may take to open a run; later it counts as unreachable
# Data that W&B would collect by itself and that must not leave the machine: code, its git remote
# and changes, command line, host and user, packages, output.
_SETTINGS: Facts = {
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
_MISSING = "–"  # The cell of a value that is unknown: of training.inspection


class Session(Tracker):
    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Open or resume the run in `project`; offline if it must be. Imports W&B."""
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reports would leave the machine
        os.environ["WANDB_CONSOLE"] = "off"
        os.environ["WANDB_DIR"] = str(run.folder)  # else its commands log in the working directory
        import wandb

        self._wandb, self._folder, is_finished = wandb, run.folder, run.command is None
        wandb.run = None  # of an earlier attempt
        with suppress(Exception):
            wandb.teardown()
        mode = "online" if is_finished else wandb.setup().settings.mode
        kind, why = "notice", "W&B is set to offline" if mode in ("offline", "dryrun") else ""
        try:
            why = why or ("" if self._is_logged_in() else "not logged in")
            if why and is_finished:
                raise TrackerError(f"{why}; run wandb login, or set WANDB_API_KEY")
            self._run = self._open(run, project, id_, is_online=not why)
        except wandb.errors.Error as error:
            if why or is_finished:
                raise
            kind, why = "warning", describe(error)
            self._run = self._open(run, project, id_, is_online=False)
        more = f"; to send it:  {run.command}" if kind == "notice" else ""  # else it is added
        self.notice = kind, f"recorded offline ({why}){more}" if why else self._run.url
        # A file that is offline has the whole run: the earlier ones are void.
        self.last_step = max(self._run.starting_step - 1, 0) if self._run.resumed else 0
        for path in run.folder.glob(f"wandb/*run-*-{id_}/run-{id_}.wandb"):
            if not why or str(path.parent) not in self._run.dir:
                path.with_name(f"{path.name}.synced").touch()  # `wandb sync` skips it
        self._run.define_metric("*", step_metric=STEP)

    def log(self, rows: Sequence[Row]) -> None:
        for step, values in rows:
            self._run.log({STEP: step, **values}, step=step)

    def log_samples(self, step: int, samples: Facts) -> None:
        columns = [_column(cells) for cells in zip(*samples["rows"], strict=True)]
        data = [list(row) for row in zip(*columns, strict=True)]
        table = self._wandb.Table(columns=samples["columns"], data=data)
        pictures = {
            f"samples/{each['name']}": self._wandb.Image(each["path"], caption=each["caption"])
            for each in samples["pictures"]
        }
        self._run.log({STEP: step, "samples/predictions": table, **pictures}, step=step)

    def upload(self, step: int, files: Sequence[Path], is_best: bool) -> None:
        artifact = self._wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
        # Hard links to the files: the run may remove its own before they are sent.
        staged = Path(tempfile.mkdtemp(prefix=f"step-{step:08}-", dir=self._folder / "wandb"))
        for path in files:
            os.link(path, linked := staged / path.name)
            artifact.add_file(str(linked), name=path.name, policy="immutable", skip_cache=True)
        aliases = ["latest", f"step-{step}", *["best"] * is_best]
        self._run.log_artifact(artifact, aliases=aliases)

    def finish(self, summary: Facts, exit_code: int, will_resume: bool) -> None:
        """Close the run and wait until all is sent; `will_resume`: mark it as preempted."""
        self._run.summary.update(dict(summary))
        if will_resume:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)

    def _is_logged_in(self) -> bool:
        with suppress(self._wandb.errors.UsageError, ValueError):
            try:
                return bool(self._wandb.login(prompt=False))
            except TypeError:  # a version without the parameter `prompt`
                return bool(self._wandb.api.api_key)
        return False

    def _open(self, run: Run, project: str, id_: str, is_online: bool) -> Any:
        settings = {**_SETTINGS, "x_stats_pid": run.pid}
        known = self._wandb.Settings.model_fields  # which differ between versions
        entity, _, project = project.rpartition("/")
        opened = self._wandb.init(
            id=id_,
            project=project or os.environ.get("WANDB_PROJECT") or "gearshift",
            entity=entity or None,
            name=os.environ.get("WANDB_NAME") or run.folder.name,
            tags=[run.facts[name] for name in ("model", "mode", "engine") if name in run.facts],
            dir=str(run.folder),
            mode="online" if is_online else "offline",
            resume="allow",
            settings=self._wandb.Settings(**{k: v for k, v in settings.items() if k in known}),
        )
        config = {**nested(run.settings), "origins": nested(run.origins), "run": run.facts}
        opened.config.update(config, allow_val_change=True)
        return opened


def _column(cells: Sequence[str | float | None]) -> Sequence[str | float | None]:
    """All text, or all numbers with None for an unknown one: W&B takes no other column."""
    if any(isinstance(cell, str) and cell != _MISSING for cell in cells):
        return [cell if isinstance(cell, str) else f"{cell:.4g}" for cell in cells]
    return [None if cell == _MISSING else cell for cell in cells]
