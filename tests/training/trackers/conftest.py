"""Local servers of trackers, and a home directory without a login."""

import os

import pytest

from gearshift.training.trackers import process
from tests.training.trackers import mlflow_server, wandb_server
from tests.training.trackers.local_server import serving

# Four by four black pixels.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000000b4944415478"
    "9c6360c00400001400017dfe1eee0000000049454e44ae426082"
)
KEY = "secret0123456789" + "a" * 24


@pytest.fixture(autouse=True)
def no_login(tmp_path_factory, monkeypatch):
    """No key, no settings, and no server except the local one.

    A stopped run waits for it also on a busy machine.
    """
    monkeypatch.setattr(process, "_STOPPED_WAIT_S", 120.0)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(home))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


@pytest.fixture
def server(monkeypatch):
    """A local W&B server with a login."""
    with serving(wandb_server.Server()) as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield running


@pytest.fixture
def mlflow(monkeypatch):
    """A local MLflow server, whose client does not wait between its attempts."""
    with serving(mlflow_server.Server()) as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
        yield running
