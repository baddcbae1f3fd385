"""A small W&B server on a real socket, that keeps what it is sent and can fail in several ways."""

import gzip
import json
import re
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENTITY = "someone"
_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream$")


class Server:
    """Runs by id, each with its rows; `fails` is how it responds from now on."""

    def __init__(self):
        self.runs = {}
        self.fails = None
        """None; a status; "hang"; or "drop", which closes the connection."""
        self.fails_streams_only = False
        self.queries = Counter()
        self.bytes = bytearray()
        """All bodies."""
        self.alerts = []
        self.stored = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.over = threading.Event()

    def serve(self):
        self._http.serve_forever(poll_interval=0.02)

    def close(self):
        """Stop: from now on connections are refused."""
        self.over.set()
        self._http.shutdown()
        self._http.server_close()

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self):
                with suppress(ConnectionError):
                    super().handle()

            def log_message(self, *args):
                """Nothing."""

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                server.bytes += body
                stream = _STREAM.search(self.path)
                if server.fails is not None and (stream or not server.fails_streams_only):
                    return self._fail(server.fails)
                if stream:
                    return self._respond(server._stream(stream[3], json.loads(body)))
                if self.path != "/graphql":
                    return self._respond({})
                return self._respond({"data": server._query(json.loads(body))})

            def do_PUT(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.bytes += body
                server.stored[self.path] = body
                self._respond({})

            def do_GET(self):
                self._respond({})

            def _fail(self, how):
                if how == "hang":
                    server.over.wait(600)
                if isinstance(how, int):
                    return self._respond({"error": "no"}, how)
                self.close_connection = True

            def _respond(self, content, status=200):
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        return Handler

    def _query(self, request):
        text, given = request["query"], request.get("variables") or {}
        name = re.search(r"(?:query|mutation)\s+(\w+)", text)[1]
        self.queries[name] += 1
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
        self.alerts.append(given["title"])
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

    def lose(self, after):
        """Have nothing of later steps."""
        self.lines = dict(enumerate(json.dumps(row) for row in self.rows if row["_step"] <= after))
        self.summary["_step"] = after

    def status(self):
        """The response to a process that resumes the run."""
        counts = {"historyLineCount": len(self.lines), "eventsLineCount": 0, "logLineCount": 0}
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        names = {"id": self.id, "name": self.id, "displayName": self.title, "tags": []}
        settings = {"config": json.dumps(self.config), "wandbConfig": json.dumps({"t": 1})}
        summary = {"summaryMetrics": json.dumps(self.summary)}
        return {**names, **settings, **summary, **counts, "historyTail": tail, "eventsTail": "[]"}


@contextmanager
def serving():
    """A server for a while."""
    server = Server()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if not server.over.is_set():
            server.close()
