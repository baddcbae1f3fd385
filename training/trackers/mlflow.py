"""MLflow: its run on a tracking server, by the client alone (the package mlflow-skinny)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from training.callbacks.base import Callback
from training.settings import flat
from training.trackers.base import TrackedRun, TrackerError
from training.trackers.metrics_reader import STEP
from training.trackers.process_tracker import ProcessTracker, Service
from training.trackers.session import Row, checkpoint_files, picture_files, serve

SERVICE = Service("MLflow", "training.trackers.mlflow")
_EXPERIMENT = "gearshift"
_ID, _LAST_STEP = "gearshift.id", "gearshift.last_step"
"""Tags: the run folder that a run belongs to, and the newest step that it has."""
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true"}
_DEFAULTS = {
    # Its own default of seven attempts takes four minutes; a later process sends what is missing.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
# Limits of one request and of one value. Source: MLflow, REST API, "Log Batch".
_METRICS_PER_REQUEST, _PARAMS_PER_REQUEST, _VALUE_LENGTH = 1000, 100, 6000
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")


def tracker(run: TrackedRun, detail: str | None) -> Callback:
    """The callback for the experiment `detail`; None: MLFLOW_EXPERIMENT_NAME, else gearshift."""
    return ProcessTracker(run, SERVICE, detail)


class Session:
    """An open MLflow run: training.trackers.session.Session.

    Settings are parameters, lines of metrics.jsonl metrics, samples and checkpoints artifacts. Of
    the machine nothing is sent: no user, source file or git commit, no statistics of use.
    """

    def __init__(self, start: dict[str, Any]) -> None:
        """Open or resume the run of a start message. Imports MLflow."""
        import mlflow
        from mlflow.exceptions import MlflowException

        self._mlflow = mlflow
        self._server = mlflow.get_tracking_uri()
        try:
            self._client = mlflow.MlflowClient()
        except (MlflowException, ModuleNotFoundError):
            if start["environment"].get("MLFLOW_TRACKING_URI"):
                raise
            text = "no tracking server; export MLFLOW_TRACKING_URI=http://HOST:5000"
            raise TrackerError(text) from None
        self._experiment = self._experiment_id(start["project"], start["environment"])
        mine = f"tags.`{_ID}` = '{start['id']}'"
        found = self._client.search_runs([self._experiment], mine, max_results=1)
        run = found[0] if found else self._create(start)
        self._run = run.info.run_id
        self.last_step = int(run.data.tags.get(_LAST_STEP, 0))
        self._send_settings(start["config"], run.data.params)
        self._client.update_run(self._run, status="RUNNING")

    def address(self) -> Mapping[str, Any]:
        """The page of the run, where the server has one."""
        at = urlsplit(self._server)
        server = self._server.replace(f"//{at.netloc.rpartition('@')[0]}@", "//")  # the password
        if at.scheme not in ("http", "https"):
            return {"url": f"run {self._run} in {server}"}
        return {"url": f"{server.rstrip('/')}/#/experiments/{self._experiment}/runs/{self._run}"}

    def log(self, rows: Sequence[Row]) -> None:
        """Add metrics; each request also says which step is its newest."""
        now = int(time.time() * 1000)
        for part in _requests(rows):
            metrics = [
                self._mlflow.entities.Metric(_NOT_IN_NAMES.sub("_", name), value, now, step)
                for step, values in part
                for name, value in values.items()
                if name != STEP
            ]
            newest = self._mlflow.entities.RunTag(_LAST_STEP, str(part[-1][0]))
            self._client.log_batch(self._run, metrics, tags=[newest])

    def log_predictions(self, message: Mapping[str, Any]) -> None:
        """Add the table as samples/step-N.json; pictures are MLflow's images of that step."""
        table = {"columns": message["columns"], "data": message["rows"]}
        self._client.log_dict(self._run, table, f"samples/step-{message['step']}.json")
        with picture_files(message) as pictures:
            for picture, path in pictures:
                key = _NOT_IN_NAMES.sub("_", f"samples/{picture['name']}")
                image = self._mlflow.Image(path)
                self._client.log_image(self._run, image, key=key, step=message["step"])

    def upload(self, message: Mapping[str, Any]) -> None:
        """Upload a checkpoint as artifacts below checkpoints/."""
        for path in checkpoint_files(message):
            self._client.log_artifact(self._run, str(path), f"checkpoints/{path.parent.name}")
        if message["is_best"]:
            self._client.set_tag(self._run, "best", f"checkpoints/{Path(message['folder']).name}")

    def alert(self, message: Mapping[str, Any]) -> None:
        """Show the newest event as a tag: MLflow has no alerts."""
        self._client.set_tag(self._run, "event", f"{message['title']}: {message['text']}")

    def finish(self, summary: Mapping[str, Any], exit_code: int, will_resume: bool) -> None:
        """Add results, numbers as metrics; `will_resume`: the run is scheduled, not over."""
        now = int(time.time() * 1000)
        metrics, tags = [], []
        for name, value in summary.items():
            if isinstance(value, (int, float)):
                metrics.append(self._mlflow.entities.Metric(name, float(value), now, 0))
            else:
                tags.append(self._mlflow.entities.RunTag(name, str(value)))
        self._client.log_batch(self._run, metrics, tags=tags)
        if will_resume:
            self._client.update_run(self._run, status="SCHEDULED")
        else:
            self._client.set_terminated(self._run, "FAILED" if exit_code else "FINISHED")

    def _experiment_id(self, name: str | None, environment: Mapping[str, str]) -> str:
        if name is None and (known := environment.get("MLFLOW_EXPERIMENT_ID")):
            return known
        name = name or environment.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _create(self, start: Mapping[str, Any]) -> Any:
        facts = start["config"]["run"]
        tags = {name: str(facts[name]) for name in ("model", "mode", "engine") if name in facts}
        tags[_ID] = start["id"]
        return self._client.create_run(self._experiment, tags=tags, run_name=start["name"])

    def _send_settings(self, config: Mapping[str, Any], sent: Mapping[str, str]) -> None:
        """Parameters of MLflow cannot change: a setting that differs is a tag `changed.KEY`."""
        config = {name: value for name, value in config.items() if name != "origins"}
        values = {key: str(value)[:_VALUE_LENGTH] for key, value in flat(config).items()}
        new = [self._mlflow.entities.Param(*item) for item in values.items() if item[0] not in sent]
        for at in range(0, len(new), _PARAMS_PER_REQUEST):
            self._client.log_batch(self._run, params=new[at : at + _PARAMS_PER_REQUEST])
        for key, value in values.items():
            if sent.get(key, value) != value:
                self._client.set_tag(self._run, f"changed.{key}", value)


def _requests(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows for one request each; a step is not divided, so that its tag is true."""
    part, size = list[Row](), 0
    for row in rows:
        is_next = part and row[0] != part[-1][0]
        if is_next and size + len(row[1]) > _METRICS_PER_REQUEST // 2:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[1])
    yield part


if __name__ == "__main__":
    serve("mlflow", Session, _ENVIRONMENT, _DEFAULTS)
