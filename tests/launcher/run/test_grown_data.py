"""The split of data that has grown: no group that was trained on validates or tests."""

import json
from types import SimpleNamespace

import pytest

from gearshift.launcher.run.worker import load_data
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.models.base import DataError
from gearshift.models.common.split import load_sides
from tests.launcher.given import resolved
from tests.training.tiny import one_rank


def sides(path, run, *sets, count=60, reset=None):
    """The split of `count` requests that `run` saves; `reset`: the settings of its checkpoint."""
    rows = [json.dumps({"prompt": f"what is {i}", "response": f"{i}"}) for i in range(count)]
    path.write_text("\n".join(rows))
    run.mkdir(exist_ok=True)
    given = resolved(*sets, data=str(path))
    resume, point = None, None
    if reset is not None:
        resume, point = ResumeRequest(run, reset=("data",)), SimpleNamespace(fact=reset.get)
    load_data(RunPlan(given, resume, folder=run), given.settings, run, one_rank(), point)
    return load_sides(run)


@pytest.fixture
def first(tmp_path):
    """The settings of the split and the groups of a first start."""
    groups = sides(tmp_path / "a.jsonl", tmp_path / "run")
    given = resolved(data=str(tmp_path / "a.jsonl"))
    return {"settings": {key: setting.value for key, setting in given.values.items()}}, groups


@pytest.mark.parametrize("start", [None, "run", "run/checkpoints/step-00000003"])
def test_groups_of_grown_data_keep_their_split(first, tmp_path, start):
    facts, groups = first
    path, run, sets = tmp_path / "a.jsonl", tmp_path / "run", ()
    if start is not None:
        run, facts, sets = tmp_path / "new", None, (f"model.start={tmp_path / start}",)
        sets += ("train.seed=9",)
    grown = sides(path, run, *sets, count=120, reset=facts)
    assert {group: grown[group] for group in groups} == groups
    fresh = [grown[group] for group in grown if group not in groups]
    assert {name: fresh.count(name) for name in ("val", "test")} == {"val": 6, "test": 6}
    # A later start draws the same split, also where the earlier run is gone.
    (tmp_path / "run").rename(tmp_path / "moved") if start else None
    assert sides(path, run, *sets, count=120) == grown
    with pytest.raises(DataError) as raised:
        sides(path, run, *sets, count=130)
    assert raised.value.where == "data.path"


def test_another_seed_draws_all_groups_again(first, tmp_path):
    facts, groups = first
    again = sides(tmp_path / "a.jsonl", tmp_path / "run", "train.seed=9", reset=facts)
    assert again != groups
    other = sides(tmp_path / "a.jsonl", tmp_path / "other", "train.seed=9")
    assert again == other
