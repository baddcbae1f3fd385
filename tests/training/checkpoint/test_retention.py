"""The checkpoints kept after many saves."""

import itertools
import os
import random
import shutil
from dataclasses import replace
from functools import partial

import pytest

from gearshift.training.checkpoint import retention
from gearshift.training.checkpoint.manifest import Score
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.retention import Keep, set_aside
from gearshift.training.storage import Storage
from tests.training.checkpoint.killed import killed_at
from tests.training.checkpoint.states import saving, state, whole


def steps(run):
    names = os.listdir(run / "checkpoints")
    return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-"))


def aside(run):
    return sorted(path.name for path in (run / "checkpoints").glob("superseded-*"))


def save(saver, step, loss=None, periodic=True):
    score = None if loss is None else Score("loss", loss, "min")
    saver.save(step, state(whole(step)), {"samples": step}, periodic, score)


def test_the_newest_periodic_checkpoints_and_the_best_stay(tmp_path, alone):
    run = tmp_path / "here"
    run.mkdir()
    saver = saving(run, alone)
    for step in range(1, 7):
        save(saver, step, loss=1.0 if step == 2 else None)
        if step == 1:  # a damaged one is neither counted nor deleted
            (run / "checkpoints" / "step-00000001" / "state.json").unlink()
    assert steps(run) == [1, 2, 5, 6]
    moved = run.rename(tmp_path / "there")
    assert os.readlink(moved / "best") == os.path.join("checkpoints", "step-00000002")
    assert open_checkpoint(moved / "best").manifest.step == 2
    assert open_checkpoint(moved / "last").manifest.step == 6


def test_a_new_saver_restores_a_checkpoint_set_aside_for_replacement(tmp_path, alone):
    save(saving(tmp_path, alone, last=1), 10)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000010").rename(folder / ".replaced-step-00000010")
    saving(tmp_path, alone, last=1)
    assert os.listdir(folder) == ["step-00000010"]
    assert open_checkpoint(tmp_path / "last").manifest.step == 10


def test_the_best_scores_stay_and_the_link_points_to_the_best(tmp_path, alone):
    saver = saving(tmp_path, alone, last=1, best=2)
    for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.1), (5, 0.9)):
        save(saver, step, loss=loss, periodic=False)
    assert steps(tmp_path) == [2, 4, 5]
    assert open_checkpoint(tmp_path / "best").manifest.step == 2  # the earlier of two equals


def test_checkpoints_after_the_resume_point_are_set_aside(tmp_path, alone):
    saver = saving(tmp_path, alone, last=5)
    for step, loss in ((10, 0.5), (20, 0.4), (30, 0.1), (40, None)):
        save(saver, step, loss)

    set_aside(Storage(tmp_path), 20)
    assert aside(tmp_path) == ["superseded-step-00000030", "superseded-step-00000040"]
    assert steps(tmp_path) == [10, 20]
    assert open_checkpoint(tmp_path / "last").manifest.step == 20
    assert open_checkpoint(tmp_path / "best").manifest.step == 20

    save(saver, 30)
    for _ in range(2):
        set_aside(Storage(tmp_path), 20)
    assert aside(tmp_path)[1:] == ["superseded-step-00000030-2", "superseded-step-00000040"]
    kept = tmp_path / "checkpoints" / "superseded-step-00000030"
    assert open_checkpoint(kept).manifest.step == 30

    set_aside(Storage(tmp_path), 0)
    assert len(aside(tmp_path)) == 5
    assert not os.path.lexists(tmp_path / "last")  # a link without a target
    assert not os.path.lexists(tmp_path / "best")
    set_aside(Storage(tmp_path / "nowhere"), 0)


def test_a_damaged_checkpoint_is_renamed_and_never_linked_again(tmp_path, alone):
    saver = saving(tmp_path, alone)
    for step in (10, 20):
        save(saver, step, loss=1 / step)
    set_aside(Storage(tmp_path), 10, [20])
    assert open_checkpoint(tmp_path / "last").manifest.step == 10
    assert open_checkpoint(tmp_path / "best").manifest.step == 10
    save(saver, 30, periodic=False)
    assert (tmp_path / "checkpoints" / "damaged-step-00000020").is_dir()
    assert open_checkpoint(tmp_path / "best").manifest.step == 10


def _replace(run):
    final = retention.publish(Storage(run), 20)
    retention.settle(Storage(run), final, Keep(1, 1, None))


def test_a_kill_at_any_moment_of_replacing_a_step_leaves_the_older_or_the_newer(tmp_path, alone):
    older, newer = tmp_path / "older", tmp_path / "newer"
    for run, samples in ((older, 20), (newer, 21)):
        run.mkdir()
        score = Score("loss", 1 / samples, "min")
        saver = saving(run, alone, last=1)
        saver.save(20, state(whole(samples)), {"samples": samples}, True, score)
    found = []
    for operation in itertools.count(1):
        run = tmp_path / f"killed-{operation}"
        shutil.copytree(older, run, symlinks=True)
        shutil.copytree(
            newer / "checkpoints" / "step-00000020", run / "checkpoints" / ".saving-step-00000020"
        )
        if not killed_at(operation, partial(_replace, run)):
            break
        retention.recover(run)
        for link in ("last", "best"):
            assert open_checkpoint(run / link).manifest.step == 20
        found.append(open_checkpoint(run / "last").manifest.samples)
        retention.sweep(run)
        assert os.listdir(run / "checkpoints") == ["step-00000020"]

    # The older one until the newer has its name, through every operation of both functions.
    assert found == sorted(found)
    assert set(found) == {20, 21} and len(found) >= 8


@pytest.mark.parametrize(
    "other", [{"since": 7}, {"samples": 5}, {"metric": "accuracy"}, {"direction": "max"}], ids=str
)
def test_scores_of_another_kind_than_the_newest_one_do_not_count(tmp_path, alone, other):
    saver = saving(tmp_path, alone, last=1)
    scores = [
        Score("loss", 0.1, "min"),
        *(replace(Score("loss", v, "min"), **other) for v in (0.5, 0.4)),
    ]
    for step, score in enumerate(scores, 1):
        saver.save(step, state(whole(step)), {"samples": step}, False, score)
    best = 2 if "direction" in other else 3
    assert open_checkpoint(tmp_path / "best").manifest.step == best
    assert steps(tmp_path) == sorted({best, 3})


def test_checkpoints_at_multiples_and_at_the_named_step_stay_if_they_are_periodic(tmp_path, alone):
    saver = saving(tmp_path, alone, last=1, best=0, every=4, at=5)
    for step in range(1, 12):
        save(saver, step, periodic=step != 8)
    assert steps(tmp_path) == [4, 5, 11]


def retained(saves, keep, sign):
    """The steps that stay after `saves`, and the best, by the words of the settings."""
    present = {}
    for step, loss, periodic in saves:
        present[step] = (loss, periodic)
        scored = sorted((sign * loss, at) for at, (loss, _) in present.items() if loss is not None)
        best = [at for _, at in scored]
        on_time = [at for at, (_, periodic) in present.items() if periodic]
        stay = {step, *on_time[-keep.last :], *best[: max(1, keep.best)]}
        stay |= {at for at in on_time if keep.every and at % keep.every == 0}
        stay |= {at for at in on_time if at == keep.at}
        present = {at: entry for at, entry in present.items() if at in stay}
    return sorted(present), best[0] if best else None


KEEPS = (Keep(1, 0, None), Keep(1, 1, 3), Keep(2, 2, None, 4), Keep(3, 1, 4, 5))


@pytest.mark.parametrize(("number", "keep"), enumerate(KEEPS), ids=str)
def test_the_checkpoints_that_stay_are_those_of_the_settings(tmp_path, alone, number, keep):
    sign, direction = ((1, "min"), (-1, "max"))[number % 2]
    draws = random.Random(number)
    saver = saving(tmp_path, alone, False, keep.last, keep.best, keep.every, keep.at)
    saves = []
    for step in range(1, 11):
        loss = draws.choice([None, 0.1, 0.2, 0.3, 0.4, -1.0])
        saves.append((step, loss, draws.random() < 0.7))
        score = None if loss is None else Score("loss", loss, direction)
        saver.save(step, state(whole(step)), {"samples": step}, saves[-1][2], score)
        expected, best = retained(saves, keep, sign)
        assert steps(tmp_path) == expected
        assert open_checkpoint(tmp_path / "last").manifest.step == step
        if best is not None:
            assert open_checkpoint(tmp_path / "best").manifest.step == best


def test_a_resumed_run_prunes_what_a_kill_prevented(tmp_path, alone):
    run = tmp_path / "run"
    run.mkdir()
    saver = saving(run, alone, last=9, best=9)
    for step in range(1, 6):
        save(saver, step, loss=1 / step)
    (run / "last").unlink()
    (run / "last").symlink_to("checkpoints/step-00000004")
    retention.prune(Storage(run), Keep(2, 1, None))
    assert steps(run) == [4, 5] and open_checkpoint(run / "last").manifest.step == 5
    empty = tmp_path / "empty"
    empty.mkdir()
    retention.prune(Storage(empty), Keep(1, 1, None))
    assert not os.listdir(empty)
