"""MLflow: its run on a tracking server, by the client alone (the package mlflow-skinny)."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gearshift.training.callbacks.base import RUN_AGAIN, Facts, Numbers
from gearshift.training.settings import flat
from gearshift.training.trackers.follow import TAGS, Run, Tracker

log = logging.getLogger(__name__)

# Tags: the run folder that a run belongs to, and the newest step that it has.
_ID = "gearshift.id"
_LAST_STEP = "gearshift.last_step"
# A value has a limit, and a request one of 1000 metrics. Source: MLflow, REST API, "Log Batch".
_VALUE_LENGTH = 6000
_MOST_METRICS = 800
_NAME_LENGTH = 250
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


class Session(Tracker):
    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Open or resume the run in experiment `project`. Imports MLflow.

        Nothing of the machine is sent.
        """
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if not server:
            raise RuntimeError("no tracking server; export MLFLOW_TRACKING_URI=http://HOST:5000")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Its own seven attempts take four minutes; a later process sends what is missing.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        import mlflow

        self._mlflow = mlflow
        self._client = mlflow.MlflowClient()
        # metrics, and their last step
        self._pending: list[Any] = []
        self._newest = 0
        name = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gearshift"
        experiment = mlflow.set_experiment(name).experiment_id
        opened = self._open(run, experiment, id_)
        self._run = opened.info.run_id
        self.last_step = int(opened.data.tags.get(_LAST_STEP, 0))
        if not opened.data.params:  # they cannot change
            params = []
            for key, value in flat({**run.settings, "run": run.facts}).items():
                params.append(mlflow.entities.Param(key, str(value)[:_VALUE_LENGTH]))
            self._client.log_batch(self._run, params=params)
        self._client.update_run(self._run, status="RUNNING")

        page = re.sub("//[^/]*@", "//", server).rstrip("/")  # without a password
        self.notice = "notice", f"{page}/#/experiments/{experiment}/runs/{self._run}"

    def _open(self, run: Run, experiment: str, id_: str) -> Any:
        runs = self._client.search_runs(
            [experiment],
            f"tags.`{_ID}` = '{id_}'",
            max_results=1,
        )
        if runs:
            return runs[0]
        tags = {_ID: id_}
        tags |= {name: str(run.facts[name]) for name in TAGS if name in run.facts}
        return self._client.create_run(experiment, None, tags, run.folder.name)

    def log(self, step: int, values: Numbers) -> None:
        self._pending += self._metrics(values, step)
        self._newest = step
        if len(self._pending) > _MOST_METRICS:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            newest = self._mlflow.entities.RunTag(_LAST_STEP, str(self._newest))
            self._client.log_batch(self._run, self._pending, tags=[newest])
            self._pending = []

    def log_samples(self, step: int, samples: Facts) -> None:
        table = {"columns": samples["columns"], "data": samples["rows"]}
        self._client.log_dict(self._run, table, f"samples/step-{step}.json")
        for picture in samples["pictures"]:
            key = _NOT_IN_NAMES.sub("_", f"samples/{picture['name']}")
            image = self._mlflow.Image(picture["path"])
            self._client.log_image(self._run, image, key=key, step=step)

    def upload(self, step: int, files: Sequence[Path], is_best: bool) -> None:
        folder = f"checkpoints/{files[0].parent.name}"
        for path in files:
            self._client.log_artifact(self._run, str(path), folder)
        if is_best:
            self._client.set_tag(self._run, "best", folder)

    def finish(self, summary: Facts, exit_code: int) -> None:
        """Add numbers as metrics and texts as tags; a run that will be resumed is scheduled."""
        numbers = {}
        tags = []
        for name, value in summary.items():
            if isinstance(value, str):
                tags.append(self._mlflow.entities.RunTag(name, value))
            else:
                numbers[name] = value
        self._client.log_batch(self._run, self._metrics(numbers, 0), tags=tags)
        if exit_code == RUN_AGAIN:
            self._client.update_run(self._run, status="SCHEDULED")
        else:
            self._client.set_terminated(self._run, "FAILED" if exit_code else "FINISHED")

    def _metrics(self, values: Numbers, step: int) -> list[Any]:
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        return [metric(accepted(name), v, now, step) for name, v in values.items()]


@cache
def accepted(name: str) -> str:
    """The name of a metric as MLflow accepts it: it refuses a whole request for one name.

    It takes a name as a path, without empty parts and dots alone. Logs a warning of a change.
    """
    text = _NOT_IN_NAMES.sub("_", name)[:_NAME_LENGTH].lstrip("./")
    parts = [part for part in text.split("/") if part.strip(".")]
    changed = "/".join(parts) or "_"
    if changed != name:
        log.warning(f"MLflow has the metric '{name[:_NAME_LENGTH]}' as '{changed}'")
    return changed
