"""A model of the Hugging Face hub in whole command lines: train, resume, evaluate, export."""

import shutil

import pytest

from tests.launcher.hub import COMMIT, NEWER, serving_hub
from tests.models.language.test_pretrained import CONFIGS, TEXT, save
from tests.runs.conftest import result

pytestmark = pytest.mark.slow
NAME = "hf:org/tiny"
SETTINGS = ("--set", "train.preview=false", "--set", "report.enabled=false")


@pytest.fixture
def server(tmp_path, monkeypatch):
    save(tmp_path / "model", CONFIGS["llama"]())
    (tmp_path / "text.txt").write_text(TEXT)
    with serving_hub(tmp_path / "home", monkeypatch) as running:
        running.add("org/tiny", tmp_path / "model")
        yield running


def test_ranks_train_what_was_downloaded_and_a_resume_takes_the_same_commit(server, tmp_path):
    run, data = tmp_path / "run", ("--data", tmp_path / "text.txt")
    options = ("--set", f"model.pretrained={NAME}", *data, *SETTINGS, "--out", run)
    options += ("--set", "model.lora.rank=2")
    server.run(*options, "--nproc", 2, "--max-steps", 2)
    assert f'pretrained: "{NAME}@{COMMIT}"' in (run / "settings.yaml").read_text()
    assert result(run)["model"] == "language:tiny"
    # Another model has the name now.
    save(tmp_path / "model", CONFIGS["gpt2"]())
    server.add("org/tiny", tmp_path / "model", NEWER)
    server.run(*options, "--nproc", 1, "--max-steps", 4, "--resume", "auto", "--reset", "schedule")
    assert result(run)["steps"] == 4
    server.run("evaluate", run, "--split", "val", HF_HUB_OFFLINE="1")
    # After the cache is cleared, the commit is downloaded again.
    shutil.rmtree(server.cache)
    server.run("export", run, "--format", "hf", "--out", tmp_path / "export")
    assert (tmp_path / "export" / "model.safetensors").is_file()
    assert [path.name for path in server.cache.glob("*/snapshots/*")] == [COMMIT]
