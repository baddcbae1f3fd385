"""Checks of what a hub sends, before huggingface_hub makes file names of it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gearshift.launcher.base import redaction

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r'(W/)?"?\w[\w-]*"?')
_FILE = re.compile(r"(?!/)(?!(.*/)?\.{0,2}(/|$))[^\0\\]+", re.DOTALL)
"""A path within the repository: no part of it is empty, a dot or two dots."""
_PATTERNS = {
    "sha": _COMMIT,
    "rfilename": _FILE,
    "path": _FILE,
    "oid": re.compile(r"[0-9a-f]{40,64}"),
    "xetHash": re.compile(r"[0-9a-f]{64}"),
}
"""Values of the JSON of a hub that become names of files."""
_LISTED = ("siblings", "lfs")
"""Keys of such values within others."""


class UnsafeHub(Exception):
    """What a hub sends would be written outside the cache, or anybody could have changed it."""


@cache
def check_all_requests() -> None:
    """Let huggingface_hub check each request, and each response before it is used."""
    import huggingface_hub
    from huggingface_hub.utils import _http as http

    def checked_client() -> Any:
        client = http.default_client_factory()
        client.event_hooks["request"].append(lambda request: check_url(str(request.url)))
        client.event_hooks["response"].append(check_response)
        return client

    huggingface_hub.set_client_factory(checked_client)


def check_url(url: str) -> None:
    """Raise UnsafeHub if anybody on the way could read or change what is sent."""
    if not redaction.is_private(url):
        host = urlsplit(url).netloc.rpartition("@")[2]
        raise UnsafeHub(f"http://{host} is not encrypted; https, or http to this machine, is")


def check_response(response: Any) -> None:
    """Raise UnsafeHub if a commit, an ETag or a file name of a response is no such thing."""
    headers = response.headers
    commit = headers.get("X-Repo-Commit")
    if commit is not None:
        _check_value(commit, _COMMIT, "commit")
    if response.request.method == "HEAD":
        for name in ("ETag", "X-Linked-ETag"):
            if name in headers:
                _check_value(headers[name], _ETAG, name)
    is_json = "/api/" in str(response.url) and response.status_code == 200
    if is_json:
        response.read()  # httpx has not read it when it calls this
        _check_json(response.json())


def _check_json(value: Any) -> None:
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        for key, pattern in _PATTERNS.items():
            if entry.get(key) is not None:
                _check_value(entry[key], pattern, key)
        for key in _LISTED:
            _check_json(entry.get(key))


def _check_value(value: Any, pattern: re.Pattern[str], name: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise UnsafeHub(f"the hub sends {value!r} as {name}, which is not safe as a file name")


def check_snapshot(folder: Path, cache_folder: Path) -> None:
    """Raise UnsafeHub if a commit of the cache has a file outside the cache. Reads the disk."""
    root = cache_folder.resolve()
    _check_value(folder.name, _COMMIT, "commit")
    for path in [folder, *folder.rglob("*")]:
        if not path.resolve().is_relative_to(root):
            raise UnsafeHub(f"'{path}' in the cache of the hub is a link to a file outside of it")
