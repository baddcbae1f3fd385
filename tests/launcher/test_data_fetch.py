"""`data fetch` downloads the declared files, and trains nothing."""

from functools import partial
from pathlib import Path

import pytest

from tests.launcher.download.conftest import here, server
from tests.launcher.download.server import BODY, Response

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
        "train on it:  python -m launcher --model language:tiny --config mine.yaml "
        "--data downloads/data.csv"
    )
    assert sorted(p.name for p in Path().iterdir()) == ["downloads", "mine.yaml"]
    first, *_ = fetch("--model", "language:tiny").splitlines()
    assert first == "downloads/data.csv exists already, as declared"
    [found] = fetch("--json", "--out", "there")
    assert (found["path"], found["size"], found["is_new"]) == ("there/data.csv", len(BODY), True)


def test_a_failed_download_is_an_error(server, fetch):
    for response, code in ((Response(404), 2), (Response(503, headers={"Retry-After": "9999"}), 1)):
        declare(server.on("/data.csv", response))
        assert f"the server responds {response.status}" in fetch(code=code)
        assert fetch("--json", code=code)["diagnostics"][0]["severity"] == "error"


def test_wrong_arguments_are_errors(here, said):
    for arguments, message in (
        ([], "error: data fetch: download.files declares no URL"),
        (["mine.csv"], "error: data fetch 'mine.csv' names no model"),
        (["--config", "none.yaml"], "error: none.yaml does not exist"),
        (["--set", "download.retries=-1"], "error: download.retries -1 is out of range"),
    ):
        assert message in said("data", "fetch", *arguments, code=2)
        assert list(here.iterdir()) == []
