"""A local web server that answers as the Hugging Face hub does."""

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import replace

from huggingface_hub import constants

from gearshift.launcher.config import hub, hub_data
from tests.launcher.download.server import Response, serving
from tests.launcher.given import python

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEWER = COMMIT[::-1]


class Hub:
    """Models by name, and the environment of a program that uses this hub."""

    def __init__(self, server, home):
        self._server, self.cache = server, home / "hub"
        self.environment = {"HF_ENDPOINT": server.url, "HF_HOME": str(home)}

    @property
    def sent(self):
        """The names of the files that were sent."""
        paths = [path for path, _ in self._server.requests if "/resolve/" in path]
        return {path.rpartition("/")[2] for path in paths}

    @property
    def logins(self):
        """The tokens of all requests about models and data sets."""
        requests = [headers for path, headers in self._server.requests if "/api/" in path]
        return {headers.get("authorization") for headers in requests}

    def add(self, name, folder, commit=COMMIT, revision="main", kind="models"):
        """Publish the files of `folder` as the commit of a revision."""
        prefix = "/datasets" if kind == "datasets" else ""
        tree = []
        for file in (path for path in folder.rglob("*") if path.is_file()):
            content, path = file.read_bytes(), file.relative_to(folder).as_posix()
            etag = hashlib.sha1(content).hexdigest()
            tree.append({"type": "file", "path": path, "size": len(content), "oid": etag})
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit}
            response = Response(200, content, headers, has_ranges=True)
            self._server.on(f"{prefix}/{name}/resolve/{commit}/{path}", response)
        files = [{"rfilename": each["path"], "size": each["size"]} for each in tree]
        facts = {"id": name, "sha": commit, "siblings": files}
        answers = {f"revision/{revision}": facts, f"revision/{commit}": facts}
        for path, value in {**answers, f"tree/{commit}": tree}.items():
            self._server.on(f"/api/{kind}/{name}/{path}", Response(body=json.dumps(value).encode()))

    def refuse(self, name, status, code, revision="main", kind="models", times=None):
        """Answer with an error, `times` or always; `code` is the word of the hub for it."""
        headers = {"X-Error-Code": code} if code else {}
        path = f"/api/{kind}/{name}/revision/{revision}"
        response = Response(status, b"{}", {**headers, "Retry-After": "0"})
        after = self._server.responses.get(path, []) if times else []
        self._server.on(path, *[response] * (times or 1), *after)

    def cut(self, name, path, at, commit=COMMIT):
        """Close the connection once, at a byte of a file of a data set."""
        path = f"/datasets/{name}/resolve/{commit}/{path}"
        (whole,) = self._server.responses[path]
        self._server.on(path, replace(whole, cut=at), whole)

    def ranges(self, path):
        """The ranges of bytes that were asked for of files with this name."""
        requests = [headers for file, headers in self._server.requests if file.endswith(path)]
        return [headers["range"] for headers in requests if "range" in headers]

    def stop(self):
        """Answer no more."""
        constants.ENDPOINT = self._server.url.rpartition(":")[0] + ":9"

    def run(self, *words, **variables):
        """The output of the program."""
        done = python("-m", "launcher", *map(str, words), env={**self.environment, **variables})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def serving_hub(home, monkeypatch):
    """A running hub, which this process uses, with an empty cache in the folder `home`."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", *filter(is_proxy, os.environ)):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        running = Hub(server, home)
        # huggingface_hub read its environment when it was imported.
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(running.cache))
        forget()
        yield running
        forget()


def forget():
    """Forget what the hub answered, as another process does."""
    hub.fetch.cache_clear()
    hub_data.pin.cache_clear()


def is_proxy(name):
    return name.lower().endswith("_proxy")
