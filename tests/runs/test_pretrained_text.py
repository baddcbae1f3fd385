"""A pretrained BART as text decoder in whole command lines: stages, resuming, engines."""

import shutil

import pytest
from safetensors.torch import load_file

from tests.models.eeg_text.pretrained_folders import save_bart
from tests.runs.conftest import Program, losses, result

pytestmark = pytest.mark.slow
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "eval.share=0.05")
SHORT += ("--set", "train.preview=false", "--set", "log.every=1")
STAGED = ("--model", "eeg_text:tiny", "--mode", "staged", "--set", "model.pretrained=bart")
LAYER = "model.decoder.layers.1.fc1.weight"


@pytest.fixture(scope="module")
def staged_run(tmp_path_factory):
    """Both stages in one command."""
    home = tmp_path_factory.mktemp("eeg")
    (home / "bart").mkdir()
    save_bart(home / "bart")
    done = Program(home)(*STAGED, *SHORT, "--out", "x")
    assert done.returncode == 0, done.stderr
    assert "has no effect" not in done.stdout + done.stderr
    return home


def test_the_decoder_is_used_in_stage_text_only(staged_run):
    encoder, text = (result(staged_run / "x" / name) for name in ("1-encoder", "2-text"))
    assert "pretrained" not in encoder["data"]
    assert text["data"]["pretrained"] == "loaded 57/57 tensors from bart"
    assert text["data"]["tokenizer"] == "pretrained"
    trained = load_file(staged_run / "x/2-text/best/model.safetensors")
    stored = load_file(staged_run / "bart/model.safetensors")
    assert trained["decoder.bias"].equal(stored["final_logits_bias"])
    before, after = stored[LAYER], trained[LAYER.replace("model.decoder", "decoder.text")]
    assert 0 < (after - before).abs().max() < 0.05  # four steps from these weights


def test_a_stopped_stage_resumes_bit_by_bit_and_a_later_stage_starts_from_it(staged_run):
    program = Program(staged_run)
    shutil.copytree(staged_run / "x", staged_run / "killed", symlinks=True)
    text = staged_run / "killed/2-text"
    for name in ("best", "last", "result.json"):
        (text / name).unlink()
    shutil.rmtree(text / "checkpoints/step-00000004")
    (staged_run / "killed/result.json").unlink()
    done = program("resume", "killed")
    assert done.returncode == 0, done.stderr
    assert losses(text) == losses(staged_run / "x/2-text")
    done = program(*STAGED, "--stage", "top", "--from", "x", *SHORT, "--out", "top")
    assert done.returncode == 0, done.stderr
    facts = result(staged_run / "top")["data"]
    assert facts["start"].startswith("loaded 337/337") and "pretrained" not in facts
