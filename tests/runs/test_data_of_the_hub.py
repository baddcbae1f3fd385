"""A data set of the Hugging Face hub in whole command lines: train, resume, evaluate, use as start."""

import json
import shlex

import pytest

from tests.launcher.config.test_hub_data import write
from tests.launcher.given import python
from tests.launcher.hub import COMMIT, NEWER, serving_hub
from tests.runs.conftest import result

pytestmark = pytest.mark.slow
NAME = "hf:org/chats"
OPTIONS = ("--data", NAME, "--set", "train.preview=false", "--set", "report.enabled=false")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving_hub(tmp_path / "home", monkeypatch) as running:
        folder = write(tmp_path / "chats", "data/train-00000-of-00001.jsonl", "data/test.jsonl")
        running.add("org/chats", folder, kind="datasets")
        yield running


def test_a_run_keeps_its_commit_and_a_later_run_starts_from_it(server, tmp_path):
    run = tmp_path / "run"
    options = ("--model", "language:tiny", *OPTIONS, "--out", run)
    server.run(*options, "--nproc", 2, "--max-steps", 2)
    pinned = f"{NAME}@{COMMIT}:default:train"
    assert f'path: "{pinned}"' in (run / "settings.yaml").read_text()
    assert result(run)["data"]["source"] == pinned

    # Other rows have the name now, and then there is no network at all.
    rows = [{"prompt": f"another {number}", "completion": "no"} for number in range(100)]
    folder = write(tmp_path / "chats", "data/train-00000-of-00001.jsonl", rows=rows)
    server.add("org/chats", folder, NEWER, kind="datasets")
    server.run(*options, "--max-steps", 4, "--resume", "auto", "--reset", "schedule")
    assert result(run)["steps"] == 4
    server.run("evaluate", run, "--split", "val", HF_HUB_OFFLINE="1")
    server.run("resume", run, "--max-steps", 5, "--reset", "schedule", HF_HUB_OFFLINE="1")

    second = tmp_path / "second"
    server.run("--model", run, *OPTIONS, "--max-steps", 1, "--out", second)
    assert result(second)["model"] == "language:tiny"
    assert NEWER in (second / "settings.yaml").read_text()


def test_what_is_not_there_is_refused_with_the_line_to_type_and_nothing_is_written(
    server, tmp_path
):
    environment = {**server.environment, "HF_HUB_OFFLINE": "0"}
    server.refuse("org/gated", 403, "GatedRepo", kind="datasets")
    for name, fix in (
        ("hf:org/gated", "hf auth login"),
        (f"{NAME}:tset", f"--data {NAME}:default:test"),
        ("org/chats", f"--data {NAME}"),
    ):
        words = ("--model", "language:tiny", "--data", name, "--out", tmp_path / "run", "--json")
        done = python("-m", "launcher", *map(str, words), env=environment, folder=tmp_path)
        (error,) = json.loads(done.stdout)["diagnostics"]
        assert done.returncode == 2
        assert (error["key"], error["where"]) == ("data.path", f"--data {name}")
        assert fix in shlex.join(error["fix"])
        assert not (tmp_path / "run").exists()
