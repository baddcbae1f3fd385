"""Translation of pages in two stages, as whole command lines: weights, resuming, verifying."""

import pytest

from tests.runs.conftest import Program, result, weights

pytestmark = pytest.mark.slow
STAGED = ("--model", "doc_translation:tiny", "--mode", "staged")
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "data.fraction=0.05")
SHORT += ("--set", "data.max_new_tokens=4", "--set", "data.beams=1", "--set", "log.every=1")
SHORT += ("--set", "train.micro_batch=4", "--set", "train.global_batch=4")
ENCODERS = ("global_encoder.", "local_encoder.")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def staged_run(home):
    """Both stages in one command."""
    done = Program(home)(*STAGED, *SHORT, "--out", "x")
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stderr
    return home / "x"


def test_the_decoder_is_trained_on_the_frozen_encoders_of_the_first_stage(staged_run):
    first, second = weights(staged_run / "1-encoder"), weights(staged_run / "2-whole")
    shared = [name for name in first if name.startswith(ENCODERS)]
    assert all(first[name].equal(second[name]) for name in shared)
    found = result(staged_run / "2-whole")
    assert found["data"]["encoder"].startswith(f"loaded {len(shared)}/{len(shared)} tensors")
    stages = result(staged_run)["stages"]
    assert [stage["parameters"] for stage in stages] == [199_052, 338_877]
    assert [stage["best"]["metric"] for stage in stages] == ["val_masked_r2", "val_bleu"]


@pytest.mark.parametrize("stage", ["1-encoder", "2-whole"])
def test_a_stage_replays_and_exports(home, staged_run, stage):
    program = Program(home)
    verified = program("verify", f"x/{stage}")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    done = program("export", f"x/{stage}", "--format", "safetensors", "--out", f"exported-{stage}")
    assert done.returncode == 0, done.stderr


def test_the_first_stage_resumes_under_another_engine(home, staged_run):
    args = (*STAGED, *SHORT, "--stage", "encoder")
    first = Program(home)(*args, "--set", "stop.after=2", "--out", "half")
    assert first.returncode == 0, first.stderr
    more = ("--engine", "fsdp", "--nproc", "2", "--reset", "optimizer", "--set", "stop.after=null")
    done = Program(home)("resume", "half", *more)
    assert done.returncode == 0, done.stderr
    assert result(home / "half")["steps"] == 4


def test_frozen_encoders_train_under_another_engine(home, staged_run):
    args = (*STAGED, *SHORT, "--stage", "whole", "--from", "x", "--out", "sharded")
    done = Program(home)(*args, "--engine", "zero3", "--nproc", "2")
    assert done.returncode == 0, done.stderr
    first, second = weights(staged_run / "1-encoder"), weights(home / "sharded")
    assert all(second[n].equal(t) for n, t in first.items() if n.startswith(ENCODERS))
