"""A replay is bit-identical, and a flipped bit is named."""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.saved_runs import saved_model
from gearshift.launcher.saved_runs.verify import (
    Interval,
    check_layers,
    choose,
    compare_replay,
    render,
)
from gearshift.training.checkpoint import manifest
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.logging.encoding import encode
from tests.launcher.runs import write_manifest
from tests.launcher.saved_runs import change_tensor, checkpoint, contents
from tests.runs.conftest import REQUESTS

NORM = "model.norm.weight"


@pytest.fixture
def data(trained):
    """The data of the run, where it was."""
    path = trained.parent / "mine.jsonl"
    path.write_text(REQUESTS)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def test_a_replay_is_identical_and_leaves_no_trace(run, data, temporary, said):
    # What a resume would repair: a checkpoint half replaced at a kill.
    (run / "checkpoints" / ".replaced-step-00000005").mkdir()
    (run / "checkpoints" / ".replaced-step-00000005" / "state.json").touch()
    before = contents(run)
    found = said("verify", run, "--json")
    assert (found["identical"], found["first_difference"], found["tolerance"]) == (True, None, None)
    assert (found["from_step"], found["to_step"], found["steps"]) == (4, 6, 2)
    assert found["tensors"] == 4 * 20  # weights, two slots, the average
    assert found["lines"] == 2  # the line and the evaluation of step 6
    assert contents(run) == before
    assert list(temporary.iterdir()) == []


def test_data_that_moved_is_named_and_a_flipped_bit_is_found(run, temporary, said, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert "hint          --data PATH" in said("verify", run, code=2)
    moved = run.parent / "mine.jsonl"
    moved.write_text(REQUESTS)
    change_tensor(
        checkpoint(run, 6), f"exp_avg|{NORM}|0", lambda t: t.view(torch.int32)[5:6].add_(1)
    )
    found = said("verify", run, "--data", "mine.jsonl", "--json", code=1)["first_difference"]
    assert (found["kind"], found["name"], found["index"]) == ("exp_avg", NORM, [5])
    moved.write_text(REQUESTS.replace("a", "b"))
    err = said("verify", run, "--data", "mine.jsonl", code=2)
    assert "where         data.path\n" in err and "--reset" not in err
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("command", ["verify", "evaluate", "export", "predict"])
def test_a_checkpoint_that_does_not_exist_is_an_error_with_the_steps_there_are(run, command):
    absent = run / "checkpoints" / "step-00000099"
    with pytest.raises(SettingsError) as error:
        saved_model.find_saved(str(absent), command)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.where.endswith(f"{command} {absent}")
    assert diagnostic.allowed == "2, 4, 6"


def chosen(place):
    """The interval that is replayed, and its notes."""
    last, interval, notes = choose(saved_model.find_saved(str(place), "verify"))
    assert last.manifest.step == interval.end
    return interval, notes


def resumed(step, **facts):
    written_by = {"engine": "local", "world_size": 1}
    found = {"written_by": written_by, "changes": [], "reset": [], **facts}
    return json.dumps({"kind": "resumed", "step": step, "facts": found}) + "\n"


def test_resets_and_changed_restarts_of_the_interval_are_replayed_or_noted(run):
    with (run / "events.jsonl").open("a") as file:
        file.write(resumed(4, reset=["data"]) + resumed(4, reset=["optimizer"]) + '{"half')
    interval, notes = chosen(run)
    assert (interval.reset, notes) == (("optimizer",), [])
    shutil.rmtree(checkpoint(run, 4))
    (run / "events.jsonl").write_text(
        resumed(3)
        + resumed(4, written_by={"engine": "ddp", "world_size": 2})
        + resumed(5, reset=["schedule"], changes=["optim.lr 2 → 1"])
    )
    interval, notes = chosen(run)
    assert notes == list(interval.changes)
    assert ["at step 4" in notes[0], "at step 5" in notes[1]] == [True] * 2


def test_smaller_micro_batches_of_a_run_cannot_be_replayed_until_it_was_resumed(run):
    smaller = (
        json.dumps({"kind": "smaller_micro_batch", "step": 3, "facts": {"from": 2, "to": 1}}) + "\n"
    )
    for events, count in ((smaller, 1), (smaller + resumed(3), 0), (smaller.replace("3", "6"), 0)):
        (run / "events.jsonl").write_text(events)
        interval, notes = chosen(run)
        assert (len(interval.changes), notes) == (count, list(interval.changes))


def test_layers_that_depend_on_the_split_are_named_with_the_command_that_can_compare():
    typed = CliArgs(
        engine="ddp", options={"engine.nproc": ("--nproc", "2"), "data.path": ("--data", "x y")}
    )
    layers = {"FiLM": ["a.film", "b.film"], "Norm": ["c"]}
    with pytest.raises(SettingsError) as raised:
        check_layers(layers, "1 process with micro-batches of 4", "runs/a", typed)
    [error] = raised.value.diagnostics
    assert error.value == layers and "a.film and 1 more" in error.message and "(c)" in error.message
    assert error.where.endswith("verify runs/a --engine ddp --nproc 2 --data 'x y'")
    assert error.fix == "python -m launcher verify runs/a --data 'x y'"
    check_layers({}, "1 process with micro-batches of 4", "runs/a", typed)


SMALL = ("--max-steps", "2", "--set", "train.global_batch=4", "--set", "train.micro_batch=2")
SMALL += ("--set", "eval.every=null", "--set", "eval.last=false", "--set", "train.preview=false")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "layers"), [("language", None), ("abr", {"FiLM"}), ("eeg_text", {"MaskedBatchNorm"})]
)
def test_another_split_is_compared_unless_layers_depend_on_it(here, temporary, said, model, layers):
    said("--model", f"{model}:tiny", *SMALL, "--out", "x")
    words = ("verify", "x", "--engine", "ddp", "--nproc", "2", "--json")
    found = said(*words, code=0 if layers is None else 2)
    if layers is None:
        assert found["agrees"] and found["world_size"] == 2
    else:
        [error] = found["diagnostics"]
        assert set(error["value"]) == layers
        found = said("verify", "x", "--engine", "zero1", "--nproc", "1", "--json")
        # Not `identical`, too: where all sums round alike, it is.
        assert found["agrees"] and found["tolerance"]
        assert not (found["identical"] and found["differing_tensors"])
    assert not list(temporary.glob("gearshift-*"))


@pytest.fixture
def again(trained, tmp_path):
    """A folder as a replay leaves it."""
    return Path(shutil.copytree(trained, tmp_path / "again", symlinks=True))


@pytest.fixture
def compare(trained):
    """Compares a run with a replay of its last two steps."""

    def compared(again):
        last = open_checkpoint(checkpoint(trained, 6))
        return compare_replay(Interval(None, 4, 6), trained, last, again, ())

    return compared


def change_loss(folder, by):
    """Change the loss of step 6 as it was logged."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train" and line["step"] == 6:
            line["loss"] += by
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_different_tensor_comes_before_a_metrics_line_which_alone_is_one(compare, again):
    change_loss(again, 1e-12)
    found = compare(again)
    assert not found["agrees"] and found["first_difference"]["step"] == 6
    change_tensor(
        checkpoint(again, 6), f"weight|{NORM}|0", lambda t: t[5:7].copy_(torch.tensor([3.0, 2.0]))
    )
    found = compare(again)
    assert not found["identical"] and not found["agrees"]
    assert f"weight of {NORM}[5]" in render(found)
    facts = json.loads(encode(found))
    assert facts["first_difference"]["index"] == [5]
    assert facts["largest_difference"]["of"] == f"weight of {NORM}"


def test_another_engine_or_world_size_is_compared_with_a_tolerance(compare, again):
    change_tensor(checkpoint(again, 6), f"weight|{NORM}|0", lambda t: t.mul_(1 + 5e-5))
    change_loss(again, 1e-4)
    assert not compare(again)["agrees"]
    folder = checkpoint(again, 6)
    write_manifest(folder, replace(manifest.read(folder), engine="ddp"))
    found = compare(again)
    assert (found["identical"], found["agrees"]) == (False, True)
    assert found["tolerance"] == {"weights": 1e-4, "moments": 1e-2}
