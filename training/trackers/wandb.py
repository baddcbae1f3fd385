"""W&B: its run on a server, or in its own files in the run folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from gearshift.training.callbacks.base import RUN_AGAIN, Facts, Json
from gearshift.training.logging.encoding import describe
from gearshift.training.settings import nested
from gearshift.training.trackers.follow import TAGS, Run, Tracker

STEP = "global_step"
"""The x axis of all charts."""
# Code, git, command line, host and user, packages and output must not leave the machine.
_SETTINGS: Facts = {
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "save_code": False,
    "symlink": False,
    "x_save_requirements": False,
    "console": "off",
    "x_transaction_log_flush_interval": 1.0,
    "init_timeout": 30.0,  # seconds; later the server counts as unreachable
}


class Session(Tracker):
    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Open or resume the run in `project`; offline if it must be. Imports W&B."""
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # its crash reports would leave the machine
        os.environ["WANDB_DIR"] = str(run.folder)  # else its commands log in the working directory
        os.environ.setdefault("WANDB_PROJECT", "gearshift")
        os.environ.setdefault("WANDB_NAME", run.folder.name)
        import wandb

        self._wandb = wandb
        self._folder = run.folder
        kind = "notice"
        why = "W&B is set to offline"
        try:
            self._run = self._open(
                run,
                project,
                id_,
                "online" if run.command is None else None,
            )
        except wandb.errors.Error as error:
            if run.command is None:
                raise
            # A usage error: there is no login.
            kind = "notice" if isinstance(error, wandb.errors.UsageError) else "warning"
            why = describe(error)
            self._run = self._open(run, project, id_, "offline")
        self.notice = kind, self._run.url or f"recorded offline ({why}); to send it:  {run.command}"
        if self._run.disabled:
            self.notice = "notice", "WANDB_MODE=disabled: W&B records nothing"
        if self._run.resumed:
            self.last_step = max(self._run.starting_step - 1, 0)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Facts) -> None:
        self._run.log({STEP: step, **values}, step=step)

    def log_samples(self, step: int, samples: Facts) -> None:
        table = self._wandb.Table(
            samples["columns"],
            samples["rows"],
            allow_mixed_types=True,
        )
        values: Json = {"samples/predictions": table}
        for each in samples["pictures"]:
            values[f"samples/{each['name']}"] = self._wandb.Image(
                each["path"],
                caption=each["caption"],
            )
        self.log(step, values)

    def upload(self, step: int, files: Sequence[Path], is_best: bool) -> None:
        artifact = self._wandb.Artifact(f"checkpoint-{self._run.id}", type="model")
        # Hard links to the files: the run may remove its own before they are sent.
        staged = Path(tempfile.mkdtemp(prefix=f"step-{step:08}-", dir=self._folder / "wandb"))
        for path in files:
            os.link(path, staged / path.name)
        artifact.add_dir(str(staged), policy="immutable", skip_cache=True)
        aliases = ["latest", f"step-{step}"]
        if is_best:
            aliases.append("best")
        self._run.log_artifact(artifact, aliases=aliases)

    def finish(self, summary: Facts, exit_code: int) -> None:
        """Close the run and wait until all is sent; one to be resumed is marked as preempted."""
        self._run.summary.update(dict(summary))
        if exit_code == RUN_AGAIN:
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)

    def _open(
        self,
        run: Run,
        project: str,
        id_: str,
        mode: Literal["online", "offline"] | None,
    ) -> Any:
        self._wandb.run = None  # of an earlier attempt
        with suppress(Exception):
            self._wandb.teardown()
        known = self._wandb.Settings.model_fields  # which differ between versions
        settings = {key: value for key, value in _SETTINGS.items() if key in known}
        entity, _, project = project.rpartition("/")
        return self._wandb.init(
            id=id_,
            project=project or None,
            entity=entity or None,
            tags=[run.facts[name] for name in TAGS if name in run.facts],
            mode=mode,
            resume="allow",
            config={
                **nested(run.settings),
                "origins": nested(run.origins),
                "run": run.facts,
            },
            allow_val_change=True,
            settings=self._wandb.Settings(**settings, x_stats_pid=os.getppid()),
        )
