"""MLflow: its run on a tracking server, by the client alone (the package mlflow-skinny)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training.callbacks.base import Facts
from training.settings import flat
from training.trackers.follow import Row, Run, Tracker

# Tags: the run folder that a run belongs to, and the newest step that it has.
_ID, _LAST_STEP = "gearshift.id", "gearshift.last_step"
# A value has a limit, and a request one of 1000 metrics. Source: MLflow, REST API, "Log Batch".
_VALUE_LENGTH, _ROWS = 6000, 25
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


class Session(Tracker):
    """An open MLflow run.

    Settings are parameters, lines of metrics.jsonl metrics, samples and checkpoints artifacts. Of
    the machine nothing is sent: no user, source file or git commit, no statistics of use.
    """

    def __init__(self, run: Run, project: str, id_: str) -> None:
        """Open or resume the run in experiment `project`. Imports MLflow."""
        if not (server := os.environ.get("MLFLOW_TRACKING_URI", "")):
            raise RuntimeError("no tracking server; export MLFLOW_TRACKING_URI=http://HOST:5000")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Its own seven attempts take four minutes; a later process sends what is missing.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        import mlflow

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        experiment = "" if project else os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            name = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gearshift"
            experiment = mlflow.set_experiment(name).experiment_id
        runs = self._client.search_runs([experiment], f"tags.`{_ID}` = '{id_}'", max_results=1)
        if runs:
            known = runs[0]
        else:
            tags = {n: str(run.facts[n]) for n in ("model", "mode", "engine") if n in run.facts}
            known = self._client.create_run(experiment, tags={**tags, _ID: id_}, run_name=run.folder.name)
        self._run, self.last_step = known.info.run_id, int(known.data.tags.get(_LAST_STEP, 0))
        # Parameters of MLflow cannot change: a setting that differs stays as it was sent.
        settings = flat({**run.settings, "run": run.facts})
        new = {key: str(v)[:_VALUE_LENGTH] for key, v in settings.items() if key not in known.data.params}
        self._client.log_batch(self._run, params=[mlflow.entities.Param(*item) for item in new.items()])
        self._client.update_run(self._run, status="RUNNING")
        at = urlsplit(server)
        server = server.replace(f"//{at.netloc.rpartition('@')[0]}@", "//")  # the password
        page = f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"
        self.notice = "notice", page if at.scheme.startswith("http") else f"run {self._run} in {server}"

    def log(self, rows: Sequence[Row]) -> None:
        for at in range(0, len(rows), _ROWS):
            part = rows[at : at + _ROWS]
            metrics = [metric for step, values in part for metric in self._metrics(values, step)]
            newest = self._mlflow.entities.RunTag(_LAST_STEP, str(part[-1][0]))
            self._client.log_batch(self._run, metrics, tags=[newest])

    def log_samples(self, step: int, samples: Facts) -> None:
        """Add the table as samples/step-N.json; pictures are MLflow's images of that step."""
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

    def finish(self, summary: Facts, exit_code: int, will_resume: bool) -> None:
        """Add results, numbers as metrics; `will_resume`: the run is scheduled, not over."""
        numbers = {name: value for name, value in summary.items() if isinstance(value, (int, float))}
        texts = {name: str(value) for name, value in summary.items() if name not in numbers}
        tags = [self._mlflow.entities.RunTag(*item) for item in texts.items()]
        self._client.log_batch(self._run, self._metrics(numbers, 0), tags=tags)
        if will_resume:
            self._client.update_run(self._run, status="SCHEDULED")
        else:
            self._client.set_terminated(self._run, "FAILED" if exit_code else "FINISHED")

    def _metrics(self, values: Mapping[str, float], step: int) -> list[Any]:
        now, metric = int(time.time() * 1000), self._mlflow.entities.Metric
        return [metric(_NOT_IN_NAMES.sub("_", name), float(v), now, step) for name, v in values.items()]
