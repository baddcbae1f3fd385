"""A small W&B server, that keeps what it is sent."""

import json
import re

from tests.training.trackers.local_server import LocalServer

ENTITY = "someone"
_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")


class Server(LocalServer):
    """Runs by id, each with its rows."""

    def __init__(self):
        super().__init__()
        self.runs = {}

    def answer(self, method, path, body):
        if stream := _STREAM.search(path):
            return self._stream(stream[3], json.loads(body))
        return {"data": self._query(json.loads(body))} if path == "/graphql" else {}

    def _query(self, request):
        text, given = request["query"], request.get("variables") or {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", text)[1]
        content = getattr(self, f"_{name}", None)
        return content(given) if content else {}

    def _Viewer(self, given):
        names = {"id": "1", "entity": ENTITY, "username": ENTITY}
        return {"viewer": {**names, "flags": "{}", "teams": {"edges": []}}}

    def _RunResumeStatus(self, given):
        run = self.runs.get(given["name"])
        return {"model": {"id": "1", "name": given["project"], "bucket": run and run.status()}}

    def _UpsertBucket(self, given):
        run = self.runs.setdefault(given["name"], Run(given["name"], given["project"]))
        run.take(given)
        bucket = {"id": run.id, "name": run.id, "displayName": run.title, "config": "{}"}
        bucket["historyLineCount"] = len(run.lines)
        entity = {"id": "1", "name": ENTITY}
        bucket["project"] = {"id": "1", "name": run.project, "entity": entity}
        return {"upsertBucket": {"bucket": bucket, "inserted": not run.lines}}

    def _CreateRunFiles(self, given):
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, given):
        return {"project": {"artifactType": {"name": given["name"]}}}

    def _NotifyScriptableRunAlert(self, given):
        return {"notifyScriptableRunAlert": {"success": True}}

    def _stream(self, name, sent):
        self.runs[name].stream(sent)
        return {}


class Run:
    """What the server holds of one run."""

    def __init__(self, name, project):
        self.id, self.project, self.title = name, project, ""
        self.config = {}
        self.summary = {}
        self.lines = {}
        """The lines of its history by their offset: what comes again for one replaces it."""
        self.exit_code = None

    @property
    def rows(self):
        return [json.loads(self.lines[at]) for at in sorted(self.lines)]

    def take(self, given):
        self.title = given.get("displayName") or self.title
        self.config |= json.loads(given.get("config") or "{}")

    def stream(self, sent):
        if history := (sent.get("files") or {}).get("wandb-history.jsonl"):
            for at, line in enumerate(history["content"], history["offset"]):
                self.lines[at] = line
        if summary := (sent.get("files") or {}).get("wandb-summary.json"):
            self.summary = json.loads(summary["content"][-1])
        if sent.get("complete"):
            self.exit_code = sent["exitcode"]

    def status(self):
        """The response to a process that resumes the run."""
        counts = {"historyLineCount": len(self.lines), "eventsLineCount": 0, "logLineCount": 0}
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        names = {"id": self.id, "name": self.id, "displayName": self.title, "tags": []}
        settings = {"config": json.dumps(self.config), "wandbConfig": json.dumps({"t": 1})}
        summary = {"summaryMetrics": json.dumps(self.summary)}
        return {**names, **settings, **summary, **counts, "historyTail": tail, "eventsTail": "[]"}
