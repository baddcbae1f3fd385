"""Sentences from EEG in two stages, as whole command lines: weights, memory, resuming."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.runs.conftest import Program, environment, result, weights

pytestmark = pytest.mark.slow
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "eval.share=0.05")
SHORT += ("--set", "train.preview=false", "--set", "log.every=1")
STAGED = ("--model", "eeg_text:tiny", "--mode", "staged")
ENCODER_ONLY = """\
import sys, launcher
launcher.train("eeg_text:tiny", "staged", settings={
    "stages": ["encoder"], "train.max_steps": 2, "eval.share": 0.05}, console=False)
print([name for name in sys.modules if name.startswith("models.eeg_text.")])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("eeg")


@pytest.fixture(scope="module")
def staged_run(home):
    """Both stages in one command."""
    done = Program(home)(*STAGED, *SHORT, "--out", "x")
    assert done.returncode == 0, done.stderr
    return home / "x", done.stdout


def test_the_text_decoder_is_trained_on_the_encoder_weights_of_the_first_stage(staged_run):
    folder, shown = staged_run
    encoder, text = weights(folder / "1-encoder"), weights(folder / "2-text")
    shared = [name for name in encoder if name.startswith("encoder.")]
    assert len(shared) > 100
    assert all(encoder[name].equal(text[name]) for name in shared)
    encoder = result(folder / "2-text")["data"]["encoder"]
    assert encoder.startswith(f"loaded {len(shared)}/{len(shared)} tensors")
    assert f"loaded {len(shared)}/{len(shared)}" in " ".join(shown.split())


def test_the_pipeline_result_has_parameters_memory_and_best_of_both(staged_run):
    pipeline_result = result(staged_run[0])
    assert [stage["parameters"] for stage in pipeline_result["stages"]] == [271708, 316248]
    assert [stage["best"]["metric"] for stage in pipeline_result["stages"]] == [
        "val_masked_r2",
        "val_rouge1_gain",
    ]
    assert all(stage["peak_memory_bytes"]["host"] > 0 for stage in pipeline_result["stages"])
    assert pipeline_result["parameters"] == 316248


def test_the_first_stage_never_imports_the_text_decoder(home):
    done = subprocess.run(
        [sys.executable, "-c", ENCODER_ONLY],
        cwd=home,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "models.eeg_text.encoder" in done.stdout
    assert "models.eeg_text.decoder" not in done.stdout


def test_a_killed_second_stage_resumes_under_another_engine(home, staged_run):
    folder = home / "killed"
    shutil.copytree(staged_run[0], folder, symlinks=True)
    text = folder / "2-text"
    for name in ("best", "last", "result.json"):
        (text / name).unlink()
    shutil.rmtree(text / "checkpoints" / "step-00000004")
    (folder / "result.json").unlink()
    encoder = (folder / "1-encoder" / "metrics.jsonl").read_bytes()
    args = ("resume", "killed", "--engine", "zero2", "--nproc", "2", "--reset", "optimizer")
    done = Program(home)(*args)
    assert done.returncode == 0, done.stderr
    assert "resuming killed/2-text from step 2" in done.stdout
    assert (folder / "1-encoder" / "metrics.jsonl").read_bytes() == encoder
    pipeline_result = result(folder)
    assert (
        pipeline_result["status"],
        pipeline_result["engine"],
        pipeline_result["world_size"],
    ) == ("completed", "zero2", 2)
    assert [stage["steps"] for stage in pipeline_result["stages"]] == [4, 4]


def test_the_second_stage_resumes_elsewhere_after_the_first(home, staged_run, tmp_path):
    shutil.copytree(staged_run[0] / "1-encoder", tmp_path / "copied", symlinks=True)
    args = ("--stage", "text", "--from", "copied", "--out", "y")
    done = Program(tmp_path)(*STAGED, *args, *SHORT)
    assert done.returncode == 0, done.stderr
    here, there = weights(tmp_path / "y"), weights(staged_run[0] / "2-text")
    assert all(here[name].equal(there[name]) for name in there)


def test_segments_of_several_windows_train_equally_with_cached_features(home, staged_run):
    args = (*STAGED, "--stage", "text", "--from", "x", *SHORT, "--set", "data.seq_len=160")
    args += ("--set", "optim.name=adamw")
    sharded = ("--nproc", "2", "--engine", "fsdp", "--set", "feature_cache.mode=off")
    found = []
    for out, more in (("cached", ()), ("sharded", sharded)):
        done = Program(home)(*args, *more, "--out", out)
        assert done.returncode == 0, done.stderr
        facts = result(home / out)["data"]
        assert (facts["windows"], facts["time_kept"]) == ("up to 3 per segment", 1.0)
        assert facts.get("feature_cache") == (None if more else "kept")
        lines = (home / out / "metrics.jsonl").read_text().splitlines()
        found.append([line["loss"] for line in map(json.loads, lines) if "loss" in line])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
