"""A real TensorBoard on a folder, queried through its HTTP interface."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

WITHIN_S = 60
PLUGIN = "/data/plugin/"


class Board:
    """The data of a running TensorBoard."""

    def __init__(self, address):
        self._address = address

    def get(self, path, body=None, **query):
        """The response to a request; a `body` is sent as JSON."""
        url = f"{self._address}{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=WITHIN_S) as response:
            return response.read()

    def json(self, path, body=None, **query):
        """The response, parsed as JSON."""
        return json.loads(self.get(path, body, **query))

    def tags(self, plugin, run):
        """The tags of a run in a plugin."""
        return set(self.json(f"{PLUGIN}{plugin}/tags").get(run, ()))

    def points(self, run, tag):
        """A curve: step and value."""
        found = self.json(f"{PLUGIN}scalars/scalars", run=run, tag=tag)
        return [(step, value) for _, step, value in found]

    def pictures(self, run, tag):
        """The PNG of each step."""
        found = self.json(f"{PLUGIN}images/images", run=run, tag=tag, sample=0)
        get = f"{PLUGIN}images/individualImage"
        queries = {call["step"]: dict(urllib.parse.parse_qsl(call["query"])) for call in found}
        return {step: self.get(get, **query) for step, query in queries.items()}


@contextmanager
def opened(folder, *options):
    """TensorBoard on a free port, once it has read all runs of `folder`."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", "0", *options]
    errors = folder / "stderr.txt"
    with errors.open("w") as file, subprocess.Popen(command, stderr=file) as process:
        try:
            until = time.monotonic() + WITHIN_S
            while not (found := re.search(r"http://[\d.]+:\d+", errors.read_text())):
                assert process.poll() is None and time.monotonic() < until, errors.read_text()
            board, runs = Board(found[0]), len(list(folder.rglob("tensorboard")))
            while len(board.json("/data/runs")) < runs:
                assert time.monotonic() < until
            yield board
        finally:
            process.terminate()
