"""A web server and a downloader for the tests of this folder."""

import time

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.schema import Download
from gearshift.launcher.download.fetch import fetch
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
    """Downloads without waits, and records what is printed."""

    def __init__(self, capsys):
        self.capsys = capsys
        self.printed = []
        self.waited = []

    def __call__(self, *files, **settings):
        declared = Download.model_validate({"files": list(files), **settings}, strict=True)
        self.capsys.readouterr()
        self.waited.clear()
        try:
            return fetch(declared, is_shown=True)
        finally:
            self.printed = self.capsys.readouterr().out.splitlines()

    def error(self, *files, kind=SettingsError, **settings):
        """The text of the error of a download."""
        with pytest.raises(kind) as raised:
            self(*files, **settings)
        return str(raised.value)


@pytest.fixture
def get(capsys, monkeypatch):
    fetcher = Fetcher(capsys)
    monkeypatch.setattr(time, "sleep", fetcher.waited.append)
    return fetcher
