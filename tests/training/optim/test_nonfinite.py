import math
from itertools import pairwise

import pytest
import torch

from gearshift.training.data.samples import DataOrder
from tests.training.odd_ranks import Odd, odd_run
from tests.training.tiny import TinyTask, one_rank, run_tiny

INDEX = 5
"""The sample that spoils a step, at a step that depends on the order."""
SPOILT = next(s for s in range(3) if INDEX in DataOrder(24, 8, 0).batch(s)[1]) + 1
SPOILERS = {"loss": {"infinite_at": [INDEX]}, "gradient": {"nan_gradient_at": [INDEX]}}


@pytest.mark.parametrize("what", SPOILERS)
def test_stop_ends_the_run_with_the_step_which_is_neither_saved_nor_evaluated(what):
    changes = {"train": {"epochs": 4}, "save": {"every": 1}, "eval": {"every": 1}}
    run = run_tiny(one_rank(), TinyTask(**SPOILERS[what]), **changes)
    assert (run.outcome.status, run.outcome.exit_code) == ("failed", 1)
    assert run.outcome.reason.endswith(f" at step {SPOILT}")
    assert run.outcome.fault == ("nonfinite_first" if SPOILT == 1 else "nonfinite_later")
    assert ("loss inf" in run.outcome.reason) == (what == "loss")
    assert run.outcome.steps == SPOILT
    assert sorted(run.shelf.saved) == list(range(1, SPOILT))
    assert [e.step for e in run.recorder.evaluations] == list(range(1, SPOILT))


@pytest.mark.parametrize(("what", "clip_norm"), [("loss", None), ("gradient", 1.0)])
def test_skip_continues_as_if_the_step_had_not_happened(what, clip_norm):
    changes = {
        "train": {"epochs": 1, "on_nonfinite": "skip 1"},
        "optim": {"name": "sgd", "lr": 0.1, "clip_norm": clip_norm},
        "schedule": {"name": "constant"},
        "save": {"every": 1},
    }
    run = run_tiny(one_rank(), TinyTask(**SPOILERS[what]), **changes)
    assert run.outcome.status == "completed"
    assert [s.step for s in run.recorder.steps if s.skipped] == [SPOILT]
    assert ("skipped", SPOILT) in [(k, f.get("step")) for k, f in run.recorder.events]
    # The same steps without the nonfinite one: its gradients count as zero, momentum continues.
    weights = torch.cat([w.flatten() for w in run.weights.values()])
    assert torch.isfinite(weights).all()
    assert not math.isnan(run.recorder.evaluations[-1].metrics["error"])
    # Weights after the spoilt step are those before it, to the bit.
    before, after = (run.shelf.saved[step]["pieces"] for step in (SPOILT - 1, SPOILT))
    for key, value in before.items():
        assert torch.equal(after[key], value), key


@pytest.mark.parametrize("what", SPOILERS)
def test_skip_ends_the_run_after_its_limit_of_consecutive_steps(what):
    every = {name: range(24) for name in SPOILERS[what]}
    run = run_tiny(one_rank(), TinyTask(**every), train={"epochs": 4, "on_nonfinite": "skip 2"})
    assert run.outcome.status == "failed"
    assert run.outcome.reason.startswith(
        f"3 steps in a row had a NaN or an infinity, the last in the {what} of step 3"
    )
    assert run.outcome.fault == "nonfinite_later"
    assert not run.shelf.saved


class Unlabelled(TinyTask):
    """A task without anything to learn from."""

    def num_units(self, batch):
        return 0


FP16 = TinyTask(dtype=torch.float32, nan_gradient_at=range(24))
SKIP = {"on_nonfinite": "skip 9"}


@pytest.mark.parametrize(
    ("task", "train", "steps", "word", "fault"),
    [
        # The scale of 2**16 is 1 after 16 steps: then the gradient itself is at fault.
        (FP16, {"epochs": 6}, 17, "step 17", "nonfinite_first"),
        (FP16, {"epochs": 9, **SKIP}, 26, "step 26", "nonfinite_later"),
        (FP16, {"epochs": 5}, 15, "a loss scale of 4", "nonfinite_first"),
        (TinyTask(infinite_at=range(24)), {"epochs": 1, **SKIP}, 3, "finite", "nonfinite_first"),
        (Unlabelled(), {"epochs": 1}, 3, "label", None),
    ],
    ids=["floor", "floor skipped", "search", "skipped", "no units"],
)
def test_a_run_whose_steps_were_all_skipped_fails_and_names_the_cause(
    task, train, steps, word, fault
):
    precision = "fp16" if task is FP16 else "fp32"
    run = run_tiny(one_rank(), task, train=train, precision=precision)
    assert (run.outcome.status, run.outcome.exit_code) == ("failed", 1)
    assert (run.outcome.steps, run.outcome.fault) == (steps, fault)
    assert word in run.outcome.reason
    assert run.recorder.kinds().count("nonfinite") == (fault is not None)


def spoilt_steps(sample, epochs):
    """The steps whose global batch has `sample`."""
    order = DataOrder(24, 8, 0)
    return [step + 1 for step in range(3 * epochs) if sample in order.batch(step)[1]]


def apart(steps):
    return min(later - earlier for earlier, later in pairwise(steps)) > 1


@pytest.mark.parametrize("name", ["infinite_at", "nan_gradient_at"])
def test_a_step_that_is_taken_ends_the_count_of_skips_in_a_row(name):
    epochs = 4
    # A sample without units, each fourth one, spoils nothing.
    sample = next(n for n in range(1, 24) if n % 4 and apart(spoilt_steps(n, epochs)))
    task = TinyTask(**{name: [sample]})
    run = run_tiny(one_rank(), task, train={"epochs": epochs, "on_nonfinite": "skip 1"})
    assert run.outcome.status == "completed"
    assert [step.step for step in run.recorder.steps if step.skipped] == spoilt_steps(
        sample, epochs
    )


@pytest.mark.parametrize("policy", ["stop", "skip 9"])
@pytest.mark.parametrize("name", ["infinite_at", "nan_gradient_at"])
@pytest.mark.parametrize("sample", [3, 5, 22])
def test_a_bad_sample_of_one_rank_is_that_of_one_process(worlds, policy, name, sample):
    """The sample is in the batch of either rank, in the first micro-batch or the last."""
    task = TinyTask(**{name: [sample]})
    changes = {"train": {"epochs": 4, "on_nonfinite": policy}, "log": {"every": 1}}
    changes |= {"eval": {"every": 1}, "save": {"every": 1}}
    alone = odd_run(one_rank(), Odd(), 0, changes, task)
    spoilt = spoilt_steps(sample, 4)
    for run in worlds[2].run(odd_run, Odd(), 0, changes, task):
        assert run["end"][0] == alone["end"][0]
        assert run["end"][1].partition(" at ")[2] == alone["end"][1].partition(" at ")[2]
        assert run["end"][2:] == alone["end"][2:]
        assert run["saved"] == alone["saved"]
        assert run["skipped"] == alone["skipped"] == (spoilt if policy == "skip 9" else [])
        assert len(run["evaluated"]) == len(alone["evaluated"])
        if policy == "skip 9" and name == "infinite_at":
            assert run["weights"] == pytest.approx(alone["weights"], rel=1e-9)
