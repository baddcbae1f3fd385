"""MLflow: its run on a tracking server, by the client alone (the package mlflow-skinny)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from training.callbacks.base import Facts
from training.logging.printable import TrackerError
from training.settings import flat
from training.trackers.follow import Row, Run, Tracker

# Tags: the run folder that a run belongs to, and the newest step that it has.
_ID, _LAST_STEP = "gearshift.id", "gearshift.last_step"
_DEFAULTS = {
    # Its own default of seven attempts takes four minutes; a later process sends what is missing.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
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
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.exceptions import MlflowException

        self._mlflow, server = mlflow, mlflow.get_tracking_uri()
        try:
            self._client = mlflow.MlflowClient()
        except (MlflowException, ModuleNotFoundError):
            if os.environ.get("MLFLOW_TRACKING_URI"):
                raise
            text = "no tracking server; export MLFLOW_TRACKING_URI=http://HOST:5000"
            raise TrackerError(text) from None
        experiment = self._experiment_id(project)
        mine = f"tags.`{_ID}` = '{id_}'"
        found = self._client.search_runs([experiment], mine, max_results=1)
        if found:
            at_server = found[0]
        else:
            tags = {n: str(run.facts[n]) for n in ("model", "mode", "engine") if n in run.facts}
            tags[_ID] = id_
            at_server = self._client.create_run(experiment, tags=tags, run_name=run.folder.name)
        self._run = at_server.info.run_id
        self.last_step = int(at_server.data.tags.get(_LAST_STEP, 0))
        # Parameters of MLflow cannot change: a setting that differs stays as it was sent.
        settings = flat({**run.settings, "run": run.facts})
        new = {k: str(v)[:_VALUE_LENGTH] for k, v in settings.items() if k not in at_server.data.params}
        self._client.log_batch(self._run, params=[mlflow.entities.Param(*item) for item in new.items()])
        self._client.update_run(self._run, status="RUNNING")
        at = urlsplit(server)
        server = server.replace(f"//{at.netloc.rpartition('@')[0]}@", "//")  # the password
        page = f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{self._run}"
        is_web = at.scheme in ("http", "https")
        self.notice = "notice", page if is_web else f"run {self._run} in {server}"

    def log(self, rows: Sequence[Row]) -> None:
        now, entities = int(time.time() * 1000), self._mlflow.entities
        for at in range(0, len(rows), _ROWS):
            part = rows[at : at + _ROWS]
            metrics = [
                entities.Metric(_NOT_IN_NAMES.sub("_", name), value, now, step)
                for step, values in part
                for name, value in values.items()
            ]
            newest = entities.RunTag(_LAST_STEP, str(part[-1][0]))
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
        for path in files:
            self._client.log_artifact(self._run, str(path), f"checkpoints/{path.parent.name}")
        if is_best:
            self._client.set_tag(self._run, "best", f"checkpoints/{files[0].parent.name}")

    def finish(self, summary: Facts, exit_code: int, will_resume: bool) -> None:
        """Add results, numbers as metrics; `will_resume`: the run is scheduled, not over."""
        now, entities = int(time.time() * 1000), self._mlflow.entities
        numbers = {name: v for name, v in summary.items() if isinstance(v, (int, float))}
        metrics = [entities.Metric(name, float(v), now, 0) for name, v in numbers.items()]
        texts = {name: v for name, v in summary.items() if name not in numbers}
        tags = [entities.RunTag(name, str(v)) for name, v in texts.items()]
        self._client.log_batch(self._run, metrics, tags=tags)
        if will_resume:
            self._client.update_run(self._run, status="SCHEDULED")
        else:
            self._client.set_terminated(self._run, "FAILED" if exit_code else "FINISHED")

    def _experiment_id(self, name: str) -> str:
        if not name and (known := os.environ.get("MLFLOW_EXPERIMENT_ID")):
            return known
        name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "gearshift"
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))
