"""A local W&B server, and a home directory without a login."""

import pytest

from tests.training.trackers.wandb_server import serving

KEY = "secret0123456789" + "a" * 24


@pytest.fixture(autouse=True)
def no_login(tmp_path_factory, monkeypatch):
    """No key, no settings, and no server except the local one."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def server(monkeypatch):
    """A local server with a login."""
    with serving() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running
