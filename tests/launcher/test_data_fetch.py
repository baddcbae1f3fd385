"""`data fetch` fetches what settings declare, and trains nothing."""

import json
from pathlib import Path

import pytest

from launcher.__main__ import main
from tests.launcher.download.conftest import here, server
from tests.launcher.download.server import BODY, Answer

__all__ = ["here", "server"]


def declare(*urls):
    Path("mine.yaml").write_text(f"download:\n  files: [{', '.join(urls)}]\n")


def fetch(*words):
    return main(["data", "fetch", "--config", "mine.yaml", *words])


def test_it_tells_what_it_does_and_how_to_train_on_it(server, capsys):
    declare(server.on("/data.csv"))
    assert fetch("--model", "language:tiny") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"downloads/data.csv: downloading {server.url}/data.csv"
    assert lines[-1] == (
        "train on it:  python -m launcher --model language:tiny --config mine.yaml "
        "--data downloads/data.csv"
    )
    assert sorted(p.name for p in Path().iterdir()) == ["downloads", "mine.yaml"]


def test_machines_are_told_the_same(server, capsys):
    declare(server.on("/data.csv"))
    assert fetch("--json", "--out", "there") == 0
    [told] = json.loads(capsys.readouterr().out)
    assert (told["path"], told["size"], told["is_new"]) == ("there/data.csv", len(BODY), True)


@pytest.mark.parametrize(
    ("answer", "code"), [(Answer(404), 2), (Answer(503, headers={"Retry-After": "9999"}), 1)]
)
def test_what_cannot_be_fetched_is_told(server, capsys, answer, code):
    declare(server.on("/data.csv", answer))
    assert fetch() == code
    assert f"the server responds {answer.status}" in capsys.readouterr().err
    assert fetch("--json") == code
    assert json.loads(capsys.readouterr().out)["diagnostics"][0]["severity"] == "error"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "error: data fetch: download.files declares no URL"),
        (["mine.csv"], "error: unexpected argument 'mine.csv'"),
        (["--config", "none.yaml"], "error: there is no file none.yaml"),
        (["--set", "download.retries=-1"], "error: download.retries -1 is out of range"),
    ],
)
def test_wrong_words_are_told(here, capsys, words, said):
    assert main(["data", "fetch", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(here.iterdir()) == []
