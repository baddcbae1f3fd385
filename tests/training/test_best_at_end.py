"""A run may end with the weights of its best evaluation, and still resume from its last step."""

import pytest
import torch

from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.storage import Storage
from tests.training.tiny import TinyTask, one_rank, run_tiny


class ShowsWeights(TinyTask):
    def preview(self, model):
        return f"{model.linear.weight.detach().sum().item()!r}"


def rising(folder, in_background=False, kind=CheckpointWriter, **changes):
    """A run that gets worse after its first evaluations: the learning rate is absurd."""
    world = one_rank()
    folder.mkdir(exist_ok=True)
    saver = kind(Storage(folder), world, "local", Keep(1, 1, None), in_background)
    settings = {
        "train": {"epochs": 4},
        "eval": {"every": 2},
        "optim": {"name": "sgd", "lr": 3.0, "clip_norm": None},
        "save": {"load_best": True, "async": in_background},
        "schedule": {"name": "linear"},
    }
    return run_tiny(world, ShowsWeights(), shelf=saver, **settings | changes)


def stored(folder, name, kind="weight"):
    checkpoint = open_checkpoint(folder)
    return checkpoint.interval(kind, name, 0, checkpoint.shapes[name][0] * 4)


@pytest.mark.parametrize("in_background", [False, True])
def test_the_weights_at_the_end_are_those_of_the_best_evaluation(tmp_path, in_background):
    run = rising(tmp_path, in_background)
    best = run.outcome.best["step"]
    assert best < 12
    assert open_checkpoint(tmp_path / "best").manifest.step == best
    kept = stored(tmp_path / "best", "linear.weight")
    assert torch.equal(run.weights["linear.weight"], kept)
    loaded = [facts for kind, facts in run.recorder.events if kind == "best_loaded"]
    assert loaded == [run.outcome.best]
    after = [facts["text"] for kind, facts in run.recorder.events if kind == "preview"][-1]
    assert float(after) == pytest.approx(kept.sum().item())


def test_a_missing_best_checkpoint_is_a_warning_and_the_last_weights_stay(tmp_path):
    class Forgetful(CheckpointWriter):
        def checkpoint(self, step):
            (tmp_path / "checkpoints" / f"step-{step:08d}" / "manifest.json").unlink()
            return super().checkpoint(step)

    run = rising(tmp_path, kind=Forgetful)
    plain = rising(tmp_path / "plain", save={"async": False})
    assert run.outcome.status == "completed"
    best = run.outcome.best["step"]
    texts = [facts["text"] for kind, facts in run.recorder.events if kind == "warning"]
    assert len(texts) == 1
    assert texts[0].startswith("kept the last weights") and f"{best:08d}" in texts[0]
    assert torch.equal(run.weights["linear.weight"], plain.weights["linear.weight"])


def test_the_average_at_the_end_is_that_of_the_best_evaluation(tmp_path):
    """The test split, here the validation samples, is evaluated with it."""
    run = rising(tmp_path, has_test=True, train={"epochs": 4, "ema": 0.5})
    best = run.outcome.best["step"]
    assert best < 12
    (of_best,) = [e.metrics for e in run.recorder.evaluations if (e.step, e.split) == (best, "val")]
    assert run.outcome.test["step"] == best
    assert run.outcome.test["metrics"]["error"] == pytest.approx(of_best["error"], rel=1e-6)
