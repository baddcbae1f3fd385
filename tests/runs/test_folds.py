"""Folds of a cross-validation: the same groups in each family, run, resume and evaluation."""

import json
from pathlib import Path

import pytest
import torch

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.compare.study import count_groups
from gearshift.launcher.config.schema import task_with_data
from gearshift.models.catalog import FAMILIES
from tests.launcher.given import refused, resolved
from tests.models.tasks import batch_of

pytestmark = pytest.mark.usefixtures("one_thread")

STAGE_ENCODER = ("eeg_text",)
"""Families that can hide parts of a validation sample, at random."""


def fold_of(family, folder, *sets):
    """The split of a tiny model's data, as its run folder records it, and the task."""
    folder.mkdir()
    task = task_with_data(resolved(*sets, model=f"{family}:tiny").settings, folder)
    return json.loads((folder / "split.json").read_text()), task


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folds_of_a_family_validate_on_each_group_once_whatever_the_seed(family, tmp_path):
    sets = ["data.split_seed=5", *(["model.stage=encoder"] if family in STAGE_ENCODER else [])]
    ordinary, _ = fold_of(family, tmp_path / "ordinary", "train.seed=5", *sets)
    folds, tasks = [], []
    for number in (1, 2, 3, 3):
        seed = f"train.seed={len(folds)}"
        folder = tmp_path / str(len(folds))
        split, task = fold_of(family, folder, seed, f"data.fold={number}/3", *sets)
        assert split["fold"] == f"{number}/3" and split["test"] == ordinary["test"]
        assert not set(split["train"]) & {*split["val"], *split["test"]}
        folds.append(split)
        tasks.append(task)
    validated = [group for split in folds[:3] for group in split["val"]]
    assert sorted(validated) == sorted((*ordinary["train"], *ordinary["val"]))
    # Another train.seed: the same groups, and the same samples with the same hidden parts.
    assert folds[2] == folds[3]
    first, second = (batch_of(task, 4, "val") for task in tasks[2:])
    for name, value in first.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(value, second[name]), name


def test_the_number_of_folds_of_one_group_is_that_of_the_groups_that_do_not_test(tmp_path):
    assert count_groups(resolved(model="event_seg:tiny")) == 24 - 4
    split, _ = fold_of("event_seg", tmp_path / "last", "data.fold=20/groups")
    assert (len(split["val"]), len(split["train"])) == (1, 19)
    few = resolved("data.fraction=0.1", model="event_seg:tiny")
    with pytest.raises(SettingsError, match="fewer than 3 recordings are split by time"):
        count_groups(few)


@pytest.mark.parametrize("fold", ["0/3", "4/3", "1/1", "a/b", "1/group"])
def test_what_is_no_fold_is_refused_before_the_data_is_read(fold):
    (error,) = refused(f"data.fold={fold}")
    assert error.message == f"data.fold '{fold}' is not understood"
    assert error.allowed.startswith("k/K with k from 1 to K and K at least 2, such as 2/5")


@pytest.mark.slow
def test_a_run_of_a_fold_resumes_and_is_evaluated_on_that_fold(run):
    sets = ("train.max_steps=2", "save.every=1", "train.global_batch=4", "data.fold=2/3")
    line = [part for key in (*sets, "model.size=tiny") for part in ("--set", key)]
    assert run("--data", "mine.jsonl", *line, "--out", "x")[0] == 0
    split = Path("x/split.json").read_bytes()
    assert (json.loads(split)["fold"], json.loads(split)["counts"]["val"]) == ("2/3", 24)
    code, _, error = run("resume", "x/checkpoints/step-00000001", "--set", "data.fold=3/3")
    assert code == 2 and "data.fold" in error and "--reset data" in error
    assert run("resume", "x/checkpoints/step-00000001")[0] == 0
    assert run("verify", "x")[0] == 0
    code, out, _ = run("evaluate", "x", "--split", "val", "--json")
    recorded = [json.loads(line) for line in Path("x/metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(recorded) if line["kind"] == "eval")
    assert code == 0 and json.loads(out)["metrics"] == last["metrics"]
    assert Path("x/split.json").read_bytes() == split
