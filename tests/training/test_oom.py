"""Out of memory in a step: the step is repeated with smaller micro-batches, or the run fails."""

import pytest
import torch
from torch import nn

from gearshift.training.throttle import OutOfMemory
from tests.training.tiny import WIDTH, RecordingCallback, TinyTask, one_rank, run_tiny

CHANGES = {"train": {"epochs": 2}, "eval": {"every": None}, "log": {"every": 1}}
CHANGES |= {"global_batch": 8, "micro_batch": 8}


class HungryTask(TinyTask):
    """Runs out of memory in the backward pass of the last micro-batch that is too large."""

    def __init__(self, fits, error):
        super().__init__(dtype=torch.float32)
        self.fits, self.error = fits, error

    def loss(self, model, batch):
        found = super().loss(model, batch)
        if len(batch["x"]) > self.fits:
            found.sum.register_hook(self._run_out)
        return found

    def _run_out(self, _gradient):
        raise self.error


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand much more")


def run(fits, error=FULL, **changes):
    callback = RecordingCallback()
    return run_tiny(one_rank(), HungryTask(fits, error), callback, **CHANGES | changes)


def losses(found):
    return [line.loss for line in found.recorder.lines]


@pytest.mark.parametrize(("fits", "halvings"), [(4, 1), (1, 3)])
def test_halving_the_micro_batch_changes_losses_by_rounding_only(fits, halvings):
    found = run(fits)
    events = [(kind, facts) for kind, facts in found.recorder.events if kind == "out_of_memory"]
    assert len(events) == halvings
    assert events[0][1] == {"at": 1, "text": "CUDA out of memory. Tried to allocate 2 GiB."}
    assert losses(found) == pytest.approx(losses(run(8)), rel=1e-5)  # sums of float32


def test_gradients_of_a_failed_pass_are_dropped():
    class Late(HungryTask):
        passes = 0

        def loss(self, model, batch):
            self.passes += 1
            self.fits = 2 if self.passes == 2 else 4  # the first micro-batch is through by then
            return super().loss(model, batch)

    found = run_tiny(one_rank(), Late(4, FULL), **CHANGES | {"micro_batch": 4})
    assert "smaller_micro_batch" in found.recorder.kinds()
    assert losses(found) == pytest.approx(losses(run(8)), rel=1e-5)


class Counting(nn.Module):
    """Counts forward passes in a buffer, which it replaces or changes; statistics of inputs too."""

    def __init__(self, inner, replaces):
        super().__init__()
        self.linear, self.norm, self.replaces = inner.linear, nn.BatchNorm1d(WIDTH), replaces
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training and self.replaces:
            self.passes = self.passes + 1
        elif self.training:
            self.passes.add_(1)
        return self.linear(self.norm(x))


@pytest.mark.parametrize("engine", ["local", "ddp"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_failed_pass_is_not_counted_in_buffers(engine, replaces):
    class Task(HungryTask):
        def build(self):
            self.net = Counting(super().build(), replaces)
            return self.net

        def loss(self, model, batch):
            found = super().loss(model, batch)
            self.fits = 2  # from the second pass on
            return found

        def buffers_after(self, micro_batch):
            run_tiny(one_rank(), self, **CHANGES | {"micro_batch": micro_batch, "engine": engine})
            return dict(self.net.named_buffers())

    retried, plain = (Task(4, FULL).buffers_after(micro_batch) for micro_batch in (4, 2))
    assert plain["passes"] == 6 * 4
    assert all(torch.equal(value, plain[name]) for name, value in retried.items())


def test_after_three_halvings_or_with_one_sample_that_does_not_fit_the_run_fails_with_a_fix():
    with pytest.raises(OutOfMemory, match="a smaller model, shorter samples"):
        run(0)
    with pytest.raises(OutOfMemory) as raised:
        run(0, global_batch=16, micro_batch=16)
    assert str(raised.value) == (
        "out of memory with a micro-batch of 2: CUDA out of memory. Tried to allocate 2 GiB.\n"
        "  fix           --batch-size 1 --set train.global_batch=16"
    )


def full_run(world):
    """The message and events of a rank whose micro-batches do not fit."""
    callback = RecordingCallback()
    with pytest.raises(OutOfMemory) as raised:
        run_tiny(world, HungryTask(2, FULL), callback, **CHANGES | {"micro_batch": 4})
    return str(raised.value), callback.kinds()


def test_with_other_ranks_a_step_is_not_repeated(two_ranks):
    for message, kinds in two_ranks.run(full_run):
        assert message.endswith("--batch-size 2 --set train.global_batch=8")
        assert "smaller_micro_batch" not in kinds
