import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.test_health import advice

ROOT = Path(__file__).parents[3]


def run(folder, *args):
    """The last evaluation of the tiny model's default run, with `args` added to the command."""
    command = [sys.executable, "-m", "launcher", "--model", "eeg_text:tiny", "--out", folder]
    done = subprocess.run([*map(str, command), *args], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["metrics"] for line in lines if line["kind"] == "eval"][-1]


@pytest.mark.slow
def test_tiny_generates_unseen_sentences_from_eeg(tmp_path):
    found = run(tmp_path / "run")
    assert found["val_retrieval"] > 0.5  # chance is 1/24
    assert found["val_rouge1_gain_in_se"] > 5
    assert found["val_rouge1"] > 0.6 > found["val_rouge1_noise"]
    assert found["val_retrieval_noise"] < 0.25
    assert advice(tmp_path / "run") == []  # a healthy run is told nothing


@pytest.mark.slow
def test_tiny_ends_at_chance_on_noise(tmp_path):
    # The run itself has another exit code if a score is outside of its band.
    found = run(tmp_path / "run", "--set", "data.control=noise", "--max-steps", "120")
    assert -3 <= found["val_rouge1_gain_in_se"] <= 2
    assert found["val_retrieval"] < 1 / 24 + 3 * (1 / 24 * 23 / 24 / 38) ** 0.5
    assert found["val_rouge1"] < 0.35


@pytest.mark.slow
def test_tiny_fills_gaps_and_stage_text_starts_from_its_encoder(tmp_path):
    args = ("--set", "model.stage=encoder")
    found = run(tmp_path / "first", *args, "--max-steps", "120")
    assert found["val_masked_r2"] > 0.03  # the mean gives 0; 240 steps give 0.13
    encoder = ("--set", f"model.encoder={tmp_path / 'first'}", "--set", "model.freeze_encoder=true")
    run(tmp_path / "second", *encoder, "--max-steps", "2")
    result = json.loads((tmp_path / "second" / "result.json").read_text())
    assert "tensors from" in result["data"]["encoder"]


@pytest.mark.slow
def test_without_information_gaps_are_not_filled(tmp_path):
    args = ("--set", "model.stage=encoder", "--set", "data.control=noise", "--max-steps", "40")
    assert run(tmp_path / "run", *args)["val_masked_r2"] <= 0.02
