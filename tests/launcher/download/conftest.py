"""What the tests of fetching share."""

from __future__ import annotations

import pytest

from launcher.config.feature_settings import Download
from launcher.download.fetch import fetch
from tests.launcher.download.server import serving


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory, and no proxy between us and the server."""
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
    """Fetches at once, without a wait, and keeps what was told."""

    def __init__(self):
        self.told = []
        self.waited = []
        self.drawn = []

    def __call__(self, *files, again=False, **settings):
        declared = Download.model_validate({"files": list(files), **settings}, strict=True)
        self.told.clear()
        self.waited.clear()
        return fetch(declared, self.told.append, self.drawn.append, again, self.waited.append)


@pytest.fixture
def get():
    return Fetcher()
