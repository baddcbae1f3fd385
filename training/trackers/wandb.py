"""W&B: its run on a server, or in its own files in the run folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from training.callbacks.base import Facts
from training.logging.printable import describe
from training.settings import nested
from training.trackers.follow import Row, Run, Tracker

STEP = "global_step"
"""The x axis of all charts."""
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
    "init_timeout": 30.0,  # seconds; later the server counts as unreachable
}


class Session(Tracker):
    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Open or resume the run in `project`; offline if it must be. Imports W&B."""
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reports would leave the machine
        os.environ["WANDB_CONSOLE"] = "off"
        os.environ["WANDB_DIR"] = str(run.folder)  # else its commands log in the working directory
        import wandb

        self._wandb, self._folder, is_finished = wandb, run.folder, run.command is None
        kind, is_offline = "notice", not is_finished and wandb.setup().settings.mode in ("offline", "dryrun")
        why = "W&B is set to offline"
        try:
            self._run = self._open(run, project, id_, "offline" if is_offline else "online")
        except wandb.errors.Error as error:
            if is_offline or is_finished:
                raise
            # A usage error: nobody has logged in.
            kind, why = "notice" if isinstance(error, wandb.errors.UsageError) else "warning", describe(error)
            is_offline, self._run = True, self._open(run, project, id_, "offline")
        more = f"; to send it:  {run.command}" if kind == "notice" else ""  # else it is added
        self.notice = kind, f"recorded offline ({why}){more}" if is_offline else self._run.url
        # A file that is offline has the whole run: the earlier ones are void.
        self.last_step = max(self._run.starting_step - 1, 0) if self._run.resumed else 0
        for path in run.folder.glob(f"wandb/*run-*-{id_}/run-{id_}.wandb"):
            if not is_offline or str(path.parent) not in self._run.dir:
                path.with_name(f"{path.name}.synced").touch()  # `wandb sync` skips it
        self._run.define_metric("*", step_metric=STEP)

    def log(self, rows: Sequence[Row]) -> None:
        for step, values in rows:
            self._run.log({STEP: step, **values}, step=step)

    def log_samples(self, step: int, samples: Facts) -> None:
        columns, rows = samples["columns"], samples["rows"]
        table = self._wandb.Table(columns=columns, data=rows, allow_mixed_types=True)
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

    def _open(self, run: Run, project: str, id_: str, mode: Literal["online", "offline"]) -> Any:
        self._wandb.run = None  # of an earlier attempt
        with suppress(Exception):
            self._wandb.teardown()
        settings = {**_SETTINGS, "x_stats_pid": os.getppid()}
        known = self._wandb.Settings.model_fields  # which differ between versions
        entity, _, project = project.rpartition("/")
        opened = self._wandb.init(
            id=id_,
            project=project or os.environ.get("WANDB_PROJECT") or "gearshift",
            entity=entity or None,
            name=os.environ.get("WANDB_NAME") or run.folder.name,
            tags=[run.facts[name] for name in ("model", "mode", "engine") if name in run.facts],
            dir=str(run.folder),
            mode=mode,
            resume="allow",
            settings=self._wandb.Settings(**{k: v for k, v in settings.items() if k in known}),
        )
        config = {**nested(run.settings), "origins": nested(run.origins), "run": run.facts}
        opened.config.update(config, allow_val_change=True)
        return opened
