"""A pretrained BART as text decoder in whole command lines: stages, resuming, engines."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.engines.test_parity import missing_backend
from tests.models.eeg_text.pretrained_folders import save_bart
from tests.models.eeg_text.readers.writers import write_matlab5
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


@pytest.mark.parametrize("engine", ["zero3", "fsdp"])
def test_engines_train_it_equally(staged_run, engine):
    if reason := missing_backend(engine):
        pytest.skip(reason)
    home, program = staged_run, Program(staged_run)
    args = (*STAGED, "--stage", "text", "--from", "x", *SHORT, "--set", "optim.name=adamw")
    if not (home / "bart-local").exists():
        assert program(*args, "--out", "bart-local").returncode == 0
    out = f"bart-{engine}"
    done = program(*args, "--nproc", "2", "--engine", engine, "--out", out)
    assert done.returncode == 0, done.stderr
    assert losses(home / out) == pytest.approx(losses(home / "bart-local"), rel=1e-4)


def test_predictions_need_no_pretrained_folder(staged_run):
    program, text = Program(staged_run), staged_run / "x/2-text"
    done = program("export", str(text), "--format", "safetensors", "--out", "export")
    assert done.returncode == 0, done.stderr
    assert (staged_run / "export/tokenizer.json").is_file()
    write_matlab5(staged_run / "results.mat")
    (staged_run / "bart").rename(staged_run / "moved")
    try:
        for saved in ("export", str(text)):
            out = f"found-{Path(saved).name}"
            done = program("predict", saved, "--input", "results.mat", "--out", out)
            assert done.returncode == 0, done.stderr
            assert json.loads((staged_run / out / "results.json").read_text())["segments"]
    finally:
        (staged_run / "moved").rename(staged_run / "bart")
