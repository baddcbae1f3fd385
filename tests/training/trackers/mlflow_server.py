"""A small MLflow server, that keeps what it is sent: runs with tags, parameters and metrics."""

import json
import re
from urllib.parse import parse_qs, urlsplit

from tests.training.trackers.local_server import LocalServer

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


class Server(LocalServer):
    """Experiments by name, runs by id, artifacts by path."""

    def __init__(self):
        super().__init__()
        self.experiments = {}
        self.runs = {}
        self.artifacts = {}

    def answer(self, method, path, body):
        at = urlsplit(path)
        if at.path.startswith(_ARTIFACTS):
            self.artifacts[at.path.removeprefix(_ARTIFACTS)] = body
            return {}
        asked = {name: values[0] for name, values in parse_qs(at.query).items()}
        asked |= json.loads(body) if body else {}
        name = re.sub(r"[/-]", "_", at.path.partition("/mlflow/")[2])
        return getattr(self, name)(asked)

    def experiments_get_by_name(self, asked):
        name = asked["experiment_name"]
        if name not in self.experiments:
            return {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"no {name}"}
        facts = {"experiment_id": self.experiments[name], "name": name}
        return {"experiment": facts | {"lifecycle_stage": "active"}}

    def experiments_get(self, asked):
        name = next(name for name, id_ in self.experiments.items() if id_ == asked["experiment_id"])
        return self.experiments_get_by_name({"experiment_name": name})

    def experiments_create(self, asked):
        self.experiments[asked["name"]] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[asked["name"]]}

    def runs_create(self, asked):
        run = Run(f"run{len(self.runs)}", asked)
        self.runs[run.id] = run
        return {"run": run.facts()}

    def runs_search(self, asked):
        name, value = re.fullmatch(r"tags\.`(.+)` = '(.+)'", asked["filter"]).groups()
        found = [run for run in self.runs.values() if run.tags.get(name) == value]
        mine = [run for run in found if run.experiment in asked["experiment_ids"]]
        return {"runs": [run.facts() for run in mine]}

    def runs_get(self, asked):
        return {"run": self.runs[asked["run_id"]].facts()}

    def runs_update(self, asked):
        run = self.runs[asked["run_id"]]
        run.status = asked.get("status", run.status)
        return {"run_info": run.facts()["info"]}

    def runs_set_tag(self, asked):
        self.runs[asked["run_id"]].tags[asked["key"]] = asked["value"]
        return {}

    def runs_log_batch(self, asked):
        run, metrics = self.runs[asked["run_id"]], asked.get("metrics", [])
        params = asked.get("params", [])
        assert len(metrics) <= 1000 and len(params) <= 100, "more than a request may have"
        for each in params:
            known = run.params.setdefault(each["key"], each["value"])
            assert known == each["value"], "a parameter cannot change"
        run.metrics += [(each["step"], each["key"], float(each["value"])) for each in metrics]
        run.tags |= {each["key"]: each["value"] for each in asked.get("tags", [])}
        return {}


class Run:
    """What the server holds of one run."""

    def __init__(self, id_, asked):
        self.id, self.experiment, self.name = id_, asked["experiment_id"], asked["run_name"]
        self.tags = {each["key"]: each["value"] for each in asked.get("tags", [])}
        self.params, self.metrics, self.status = {}, [], "RUNNING"

    def points(self, name):
        """(step, value) of metric `name`, in the order they were sent."""
        return [(step, value) for step, key, value in self.metrics if key == name]

    def facts(self):
        """The run as the server describes it."""
        info = {"run_id": self.id, "run_uuid": self.id, "experiment_id": self.experiment}
        info |= {"status": self.status, "run_name": self.name, "lifecycle_stage": "active"}
        info |= {"artifact_uri": f"mlflow-artifacts:/{self.id}", "start_time": 1}
        pairs = {
            name: [{"key": key, "value": value} for key, value in known.items()]
            for name, known in (("tags", self.tags), ("params", self.params))
        }
        return {"info": info, "data": {"metrics": [], **pairs}}
