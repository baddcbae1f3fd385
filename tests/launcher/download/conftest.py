"""A web server and a downloader for the tests of this folder."""

from __future__ import annotations

import pytest

from launcher.config.feature_settings import Download
from launcher.download.fetch import fetch
from tests.launcher.download.server import serving


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory, without proxies in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    return tmp_path


@pytest.fixture
def server(here):
    with serving() as running:
        yield running


class Fetcher:
    """Downloads without waits, and records what is printed and drawn."""

    def __init__(self):
        self.printed = []
        self.waited = []
        self.drawn = []

    def __call__(self, *files, **settings):
        declared = Download.model_validate({"files": list(files), **settings}, strict=True)
        self.printed.clear()
        self.waited.clear()
        return fetch(declared, self.printed.append, self.drawn.append, self.waited.append)


@pytest.fixture
def get():
    return Fetcher()
