"""tiny translates unseen cards and fills their gaps, and other documents give no gain."""

import json
import subprocess
import sys

import pytest

from tests.runs.test_health import advice


@pytest.fixture
def run(tmp_path):
    """A whole run with `args` after its name, and its result and last evaluation."""

    def train(*args):
        out = tmp_path / "run"
        command = [sys.executable, "-m", "launcher", "--model", "doc_translation:tiny"]
        done = subprocess.run([*command, "--out", str(out), *args], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (out / "metrics.jsonl").read_text().splitlines()
        evaluated = [row for row in map(json.loads, lines) if row["kind"] == "eval"]
        return json.loads((out / "result.json").read_text()), evaluated[-1]["metrics"]

    return train


@pytest.mark.slow
def test_tiny_translates_unseen_cards(run, tmp_path):
    result, metrics = run()
    assert advice(tmp_path / "run") == []  # a healthy run is told nothing
    assert result["parameters"] == 338_877
    # Blank pages, which have no information, give less than 3.
    assert metrics["val_bleu"] > 40
    assert metrics["val_steds"] > 95


@pytest.mark.slow
def test_images_of_other_documents_give_no_gain(run):
    result, metrics = run("--set", "data.control=noise", "--max-steps", "300")
    band = result["data"]["control"]["val_bleu_gain"]
    assert metrics["val_bleu_gain"] <= band["max"] == 1.0
    assert metrics["val_bleu"] < 10


@pytest.mark.slow
def test_tiny_fills_masked_patches_of_unseen_cards(run):
    result, metrics = run("--set", "model.stage=encoder", "--max-steps", "200")
    assert result["parameters"] == 199_052
    assert metrics["val_masked_r2"] > 0.3  # the mean gives 0; 600 steps give 0.76


@pytest.mark.slow
def test_patches_are_not_filled_from_another_document(run):
    noise = ("--set", "model.stage=encoder", "--set", "data.control=noise", "--max-steps", "60")
    result, metrics = run(*noise)
    assert result["data"]["control"] == {"val_masked_gain": {"max": 0.02}}
    assert metrics["val_masked_gain"] <= 0.02
