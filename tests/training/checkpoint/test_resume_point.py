"""Resume points."""

import pytest
import torch

from gearshift.training.checkpoint.manifest import CheckpointError
from gearshift.training.checkpoint.resume_point import ResumePoint, choose
from gearshift.training.train_plan import StartSteps
from tests.training.checkpoint.states import saving, state, whole

FILES = ("manifest.json", "state.json", "manifest.sha256", "rank-00000.safetensors")


@pytest.fixture
def run(tmp_path, alone):
    """A run folder with the checkpoints of steps 10, 20 and 30."""
    saver = saving(tmp_path, alone, last=3)
    for step in (10, 20, 30):
        facts = {"samples": step}
        saver.save(step, state(whole(step)), facts, periodic=True, score=None)
    saver.wait()
    return tmp_path


def shard(run, step):
    return run / f"checkpoints/step-{step:08d}/rank-00000.safetensors"


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_the_newest_checkpoint_is_chosen_and_none_where_there_is_none(run, alone):
    assert choose(run / "checkpoints", alone, None) == (None, {})
    found, damaged = choose(run, alone, None)
    assert found.manifest.step == 30 and damaged == {}
    expected = whole(30)["exp_avg"]["embed.weight"]
    assert torch.equal(found.tensor("exp_avg", "embed.weight"), expected)


def test_a_damaged_checkpoint_selects_the_previous_one(run, alone):
    flip(shard(run, 30), 100)
    assert _chosen(alone, run) == (20, [30])
    assert "step-00000030" in choose(run, alone, None)[1][30]
    (run / "checkpoints/step-00000020/manifest.json").unlink()
    assert _chosen(alone, run) == (10, [30, 20])


def test_a_named_step_is_chosen_or_an_error_but_never_another(run, alone):
    assert choose(run, alone, 10)[0].manifest.step == 10
    flip(shard(run, 20), -1)
    with pytest.raises(CheckpointError, match="step-00000020"):
        choose(run, alone, 20)
    with pytest.raises(CheckpointError, match="step-00000025"):
        choose(run, alone, 25)


def test_two_ranks_check_a_share_each_and_agree(run, two_ranks):
    assert two_ranks.run(_chosen, run) == [(30, [])] * 2
    flip(shard(run, 30), -1)
    assert two_ranks.run(_chosen, run) == [(20, [30])] * 2


def _chosen(world, run):
    found, damaged = choose(run, world, None)
    return found.manifest.step, list(damaged)


STARTS = {"data": 4, "schedule": 6, "samples_before": 40}


@pytest.mark.parametrize(
    ("reset", "changes"),
    [
        ((), {}),
        (("optimizer",), {}),
        (("schedule",), {"schedule": 30}),
        (("data",), {"data": 30, "samples_before": 320}),
        (("data", "schedule"), {"data": 30, "samples_before": 320, "schedule": 30}),
    ],
)
def test_what_is_reset_starts_at_the_step_of_the_checkpoint(tmp_path, alone, reset, changes):
    facts = {"samples": 320, "starts": STARTS}
    saving(tmp_path, alone).save(30, state(whole()), facts, periodic=True, score=None)
    found, _ = choose(tmp_path, alone, 30)
    assert ResumePoint(found, frozenset(reset)).starts == StartSteps(**STARTS | changes)
