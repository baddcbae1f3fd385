"""`data fetch` downloads the declared files, and trains nothing."""

from functools import partial
from pathlib import Path

import pytest

from tests.launcher.download.conftest import here, server
from tests.launcher.download.server import BODY

__all__ = ["here", "server"]


def declare(*urls):
    Path("mine.yaml").write_text(f"download:\n  files: [{', '.join(urls)}]\n")


@pytest.fixture
def fetch(said):
    return partial(said, "data", "fetch", "--config", "mine.yaml")


def test_downloads_and_the_command_to_train_are_printed_and_json_lists_the_files(server, fetch):
    declare(server.on("/data.csv"))
    lines = fetch("--model", "language:tiny").splitlines()
    assert lines[0] == f"downloads/data.csv: downloading {server.url}/data.csv"
    assert lines[-1] == (
        "train on it:  python -m launcher --model language:tiny --config mine.yaml --data downloads/data.csv"
    )
    assert sorted(p.name for p in Path().iterdir()) == ["downloads", "mine.yaml"]
    first, *_ = fetch("--model", "language:tiny").splitlines()
    assert first == "downloads/data.csv exists already, as declared"
    [found] = fetch("--json", "--out", "there")
    assert (found["path"], found["size"], found["is_new"]) == ("there/data.csv", len(BODY), True)
