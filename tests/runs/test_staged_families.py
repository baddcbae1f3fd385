"""The encoder and then the whole model, as whole command lines: weights, engines, exports."""

import shutil
from dataclasses import dataclass

import pytest
from safetensors.torch import load_file

from tests.runs.conftest import Program, result, weights

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A family whose stages are `encoder` and `whole`."""

    parts: tuple[str, ...]
    """Prefixes of the parameters of its encoder."""
    metrics: tuple[str, str]
    """What selects the best checkpoint of each stage."""
    engines: tuple[str, str]
    """That train the first stage, and resume the second one; test_families.py has the others."""
    settings: tuple[str, ...] = ()


CASES = {
    "event_seg": Case(("down.",), ("val_masked_r2", "val_iou"), ("fsdp", "ddp")),
    "abr": Case(
        ("static.", "input.", "encoder.", "bottleneck."),
        ("val_masked_r2", "val_macro_f1"),
        ("oss", "zero3"),
        ("--set", "data.fraction=0.2", "--set", "train.global_batch=8"),
    ),
}
SHORT = ("--max-steps", "4", "--set", "save.every=2", "--set", "log.every=1")
SHORT += ("--set", "train.preview=false")


@pytest.fixture(scope="module", params=CASES)
def staged_run(request, tmp_path_factory):
    """Both stages in one command: the case, the home folder and the output."""
    family, case = request.param, CASES[request.param]
    home = tmp_path_factory.mktemp(family)
    args = ("--model", f"{family}:tiny", "--mode", "staged", "--out", "x")
    done = Program(home)(*args, *SHORT, *case.settings)
    assert done.returncode == 0, done.stderr
    return case, home, done.stdout


def test_the_whole_model_is_trained_on_the_frozen_encoder_of_the_first_stage(staged_run):
    case, home, shown = staged_run
    encoder, whole = weights(home / "x" / "1-encoder"), weights(home / "x" / "2-whole")
    shared = [name for name in encoder if name.startswith(case.parts)]
    assert shared == [name for name in whole if name.startswith(case.parts)]
    assert all(encoder[name].equal(whole[name]) for name in shared)
    count = f"loaded {len(shared)}/{len(shared)} tensors"
    assert result(home / "x" / "2-whole")["data"]["encoder"].startswith(count)
    assert count in " ".join(shown.split())


def test_each_stage_has_its_own_parameters_and_metric(staged_run):
    case, home, _ = staged_run
    first, second = result(home / "x")["stages"]
    assert first["parameters"] < second["parameters"]
    assert (first["best"]["metric"], second["best"]["metric"]) == case.metrics


@pytest.mark.parametrize("stage", ["1-encoder", "2-whole"])
def test_a_stage_is_verified_and_exported_as_any_run(staged_run, stage):
    _, home, _ = staged_run
    run = Program(home)
    done = run("verify", f"x/{stage}")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run("export", f"x/{stage}", "--format", "safetensors", "--out", f"{stage}-exported")
    assert done.returncode == 0, done.stderr
    exported = load_file(home / f"{stage}-exported" / "model.safetensors")
    assert exported.keys() == weights(home / "x" / stage).keys()


@pytest.mark.parametrize("family", CASES)
def test_the_first_stage_trains_under_another_engine(family, tmp_path):
    engine, _ = CASES[family].engines
    args = ("--model", f"{family}:tiny", "--mode", "staged", "--stage", "encoder", "--out", "x")
    short = (*SHORT, *CASES[family].settings, "--max-steps", "2")
    done = Program(tmp_path)(*args, *short, "--engine", engine, "--nproc", "2")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "x")["best"]["metric"] == CASES[family].metrics[0]


def test_a_killed_second_stage_resumes_under_another_engine(staged_run):
    case, home, _ = staged_run
    _, engine = case.engines
    folder = home / engine
    shutil.copytree(home / "x", folder, symlinks=True)
    whole = folder / "2-whole"
    for name in ("best", "last", "result.json"):
        (whole / name).unlink()
    shutil.rmtree(whole / "checkpoints" / "step-00000004")
    (folder / "result.json").unlink()
    args = ("resume", engine, "--engine", engine, "--nproc", "2", "--reset", "optimizer")
    done = Program(home)(*args)
    assert done.returncode == 0, done.stderr
    assert f"resuming {engine}/2-whole from step 2" in done.stdout
    assert [stage["steps"] for stage in result(folder)["stages"]] == [4, 4]
    encoder, trained = weights(folder / "1-encoder"), weights(whole)
    assert all(x.equal(trained[n]) for n, x in encoder.items() if n.startswith(case.parts))
