"""tiny translates unseen cards, and images of other documents give no gain."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def run(tmp_path):
    """A whole run with `args` after its name, and its result and last evaluation."""

    def train(*args):
        out = tmp_path / "run"
        command = [sys.executable, "-m", "launcher", "--model", "doc_translation:tiny"]
        done = subprocess.run(
            [*command, "--out", str(out), *args],
            capture_output=True,
            text=True,
            timeout=580,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (out / "metrics.jsonl").read_text().splitlines()
        evaluated = [row for row in map(json.loads, lines) if row["kind"] == "eval"]
        return json.loads((out / "result.json").read_text()), evaluated[-1]["metrics"]

    return train


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tiny_translates_unseen_cards(run):
    result, metrics = run()
    assert result["parameters"] == 338_877
    # Blank pages, which have no information, give less than 3.
    assert metrics["val_bleu"] > 40
    assert metrics["val_steds"] > 95


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_images_of_other_documents_give_no_gain(run):
    result, metrics = run("--set", "data.control=noise", "--max-steps", "300")
    band = result["data"]["control"]["val_bleu_gain"]
    assert metrics["val_bleu_gain"] <= band["max"] == 1.0
    assert metrics["val_bleu"] < 10
