"""The result of a replay that is identical, equal within the tolerance, or different."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launcher.saved_runs import verify
from launcher.saved_runs.verify import Conditions, ReplayInterval, compare_replay
from tests.launcher.given import SERVER, resolved
from tests.launcher.runs import saved
from tests.launcher.saved_runs import change_tensor, checkpoint
from training.checkpoint.compare import Tolerance
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import open_checkpoint
from training.logging.strict_json import encode

NORM = "model.norm.weight"


@pytest.fixture
def again(trained, tmp_path):
    """A folder as a replay leaves it."""
    return Path(shutil.copytree(trained, tmp_path / "again", symlinks=True))


@pytest.fixture
def compare(trained):
    """Compares a run with a replay of its last two steps."""

    def compared(
        again, engine="local", world_size=1, precision="fp32", notes=(), last=None, run=trained
    ):
        conditions = Conditions(ReplayInterval(None, 4, 6), engine, world_size, precision)
        last = last or open_checkpoint(checkpoint(trained, 6))
        return compare_replay(conditions, run, last, again, notes)

    return compared


def change_loss(folder, by):
    """Change the loss of step 6 as it was logged."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train" and line["step"] == 6:
            line["loss"] += by
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_equal_replay_is_identical(compare, again):
    found = compare(again, notes=["a note"])
    assert found.is_identical and found.agrees
    assert verify.render(found) == (
        "identical: 80 tensors, 2 steps\n"
        "  replay   steps 4 to 6, local on 1 process, bit by bit; 2 logged lines\n"
        "  note     a note"
    )
    found = compare(again, engine="ddp", world_size=2)
    assert found.is_identical
    assert "steps 4 to 6, ddp on 2 processes" in verify.render(found)


def test_a_different_tensor_comes_before_a_metrics_line_which_alone_is_one(compare, again):
    change_loss(again, 1e-12)
    found = compare(again)
    assert not found.agrees
    assert verify.render(found).startswith("different: loss of step 6 is ")
    assert verify.as_json(found)["first_difference"]["step"] == 6
    change_tensor(checkpoint(again, 6), f"weight|{NORM}|0", lambda t: t[5:7].fill_(2.0))
    found = compare(again)
    assert not found.is_identical and not found.agrees
    first, state, line, _ = verify.render(found).splitlines()
    assert first.startswith(f"different: weight of {NORM}[5] is ")
    assert first.endswith(" in the run and 2.0 in the replay")
    assert state.startswith(f"  state    1 of 80 tensors differ, most weight of {NORM}: by 0.1")
    assert line.startswith("  metrics  loss of step 6 is ")
    facts = json.loads(encode(verify.as_json(found)))
    assert facts["first_difference"]["index"] == [5]
    assert facts["largest_difference"]["of"] == f"weight of {NORM}"


@pytest.mark.parametrize("other", [{"engine": "ddp"}, {"world_size": 2}])
def test_another_engine_or_world_size_is_compared_with_a_tolerance(compare, again, other):
    change_tensor(checkpoint(again, 6), f"weight|{NORM}|0", lambda t: t.mul_(1 + 5e-5))
    change_loss(again, 1e-4)
    found = compare(again, **other)
    assert (found.is_identical, found.agrees) == (False, True)
    assert found.tolerance == Tolerance(1e-4, 1e-2)
    first, state, _ = verify.render(found).splitlines()
    assert first == "equal within 0.0001 (moments 0.01): 80 tensors, 2 steps"
    assert (
        state == f"  state    1 of 80 tensors differ, most weight of {NORM}: by 5e-05 of its norm"
    )
    assert not compare(again).agrees


def test_beyond_the_tolerance_which_moments_have_larger_is_a_difference(compare, again):
    change_tensor(checkpoint(again, 6), f"exp_avg|{NORM}|0", lambda t: t.mul_(1 + 1e-3))
    assert compare(again, engine="ddp").agrees
    change_tensor(checkpoint(again, 6), f"exp_avg|{NORM}|0", lambda t: t.mul_(1 + 1e-1))
    assert not compare(again, engine="ddp").agrees
    assert compare(again, engine="ddp", precision="bf16").agrees
    change_tensor(checkpoint(again, 6), f"exp_avg|{NORM}|0", lambda t: t.div_(1 + 1e-1))
    change_tensor(checkpoint(again, 6), f"weight|{NORM}|0", lambda t: t.mul_(1 + 1e-3))
    assert not compare(again, engine="ddp").agrees
    assert compare(again, engine="ddp", precision="bf16").agrees


def test_other_versions_of_libraries_are_noted(compare, trained, again):
    last = open_checkpoint(checkpoint(trained, 6))
    last.manifest = replace(last.manifest, libraries={"torch": "1.0", "python": "3"})
    version = torch.__version__
    assert compare(again, last=last).notes == [
        f"torch 1.0 wrote the checkpoint; the replay used torch {version}"
    ]


def test_a_run_without_the_lines_or_tensors_of_the_interval_is_not_identical(
    compare, trained, again, tmp_path
):
    path = again / "metrics.jsonl"
    path.write_text("".join(line for line in path.open() if '"step": 6' not in line))
    with pytest.raises(CheckpointError) as error:
        compare(trained, run=again)
    assert str(error.value) == (
        f"nothing was compared: {path} has no line of the steps 5 to 6, which the replay logged"
    )
    last = open_checkpoint(saved(tmp_path / "none", 6, resolved()))
    with pytest.raises(CheckpointError, match=r"nothing was compared: .*step-00000006 has no"):
        compare(tmp_path / "none", last=last)


def test_a_nondeterministic_gpu_is_noted():
    for machine, sets, count in ((SERVER, (), 1), (SERVER, ("train.deterministic=true",), 0)):
        assert len(list(verify.nondeterminism(resolved(*sets, machine=machine)))) == count
    assert list(verify.nondeterminism(resolved())) == []
    note = "train.deterministic is off: cuda may add numbers in any order"
    assert list(verify.nondeterminism(resolved(machine=SERVER))) == [note]
