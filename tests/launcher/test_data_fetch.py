"""`data fetch` downloads the declared files, and trains nothing."""

import json
from pathlib import Path

import pytest

from launcher.__main__ import main
from tests.launcher.download.conftest import here, server
from tests.launcher.download.server import BODY, Response

__all__ = ["here", "server"]


def declare(*urls):
    Path("mine.yaml").write_text(f"download:\n  files: [{', '.join(urls)}]\n")


def fetch(*arguments):
    return main(["data", "fetch", "--config", "mine.yaml", *arguments])


def test_downloads_and_the_command_to_train_are_printed_and_json_lists_the_files(server, capsys):
    declare(server.on("/data.csv"))
    assert fetch("--model", "language:tiny") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"downloads/data.csv: downloading {server.url}/data.csv"
    assert lines[-1] == (
        "train on it:  python -m launcher --model language:tiny --config mine.yaml "
        "--data downloads/data.csv"
    )
    assert sorted(p.name for p in Path().iterdir()) == ["downloads", "mine.yaml"]
    assert fetch("--model", "language:tiny") == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "downloads/data.csv exists already, as declared"
    assert fetch("--json", "--out", "there") == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["path"], found["size"], found["is_new"]) == ("there/data.csv", len(BODY), True)


@pytest.mark.parametrize(
    ("response", "code"), [(Response(404), 2), (Response(503, headers={"Retry-After": "9999"}), 1)]
)
def test_a_failed_download_is_an_error(server, capsys, response, code):
    declare(server.on("/data.csv", response))
    assert fetch() == code
    assert f"the server responds {response.status}" in capsys.readouterr().err
    assert fetch("--json") == code
    assert json.loads(capsys.readouterr().out)["diagnostics"][0]["severity"] == "error"


def test_wrong_arguments_are_errors(here, capsys):
    for arguments, message in (
        ([], "error: data fetch: download.files declares no URL"),
        (["mine.csv"], "error: unexpected argument 'mine.csv'"),
        (["--config", "none.yaml"], "error: none.yaml does not exist"),
        (["--set", "download.retries=-1"], "error: download.retries -1 is out of range"),
    ):
        assert main(["data", "fetch", *arguments]) == 2
        assert message in capsys.readouterr().err
        assert list(here.iterdir()) == []
