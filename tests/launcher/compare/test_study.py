"""The rounds of a study, its tasks in a Slurm array, and what an earlier start has finished."""

import json
from dataclasses import replace

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.compare.study import ArrayTask, Study, array_task, differences
from launcher.config.batching import fitted
from launcher.config.provenance import CLI_LAYER, ENGINE_LAYER
from launcher.config.render import render_origins
from tests.launcher.given import resolved

STUDY = Study(3, False, 2, split_seed=7, seed=7, eval_share=0.2)


def test_a_round_has_a_fold_and_a_seed_of_its_own_and_the_split_of_all():
    assert STUDY.title == "3 folds × 2 seeds"
    names = [entry.name for entry in STUDY.rounds]
    assert names == [f"fold{fold}-seed{seed}" for seed in (1, 2) for fold in (1, 2, 3)]
    split = ["data.split_seed=7", "eval.share=0.2"]
    assert STUDY.rounds[4].sets == ["train.seed=8", *split, "data.fold=2/3"]
    seeds = replace(STUDY, folds=None)
    assert [entry.title for entry in seeds.rounds] == ["seed 1", "seed 2"]
    assert seeds.rounds[1].sets == ["train.seed=8", *split]
    assert (seeds.share, seeds.unit) == (0, "seed")
    groups = replace(STUDY, by_group=True, seeds=None)
    assert groups.rounds[2].sets == ["train.seed=7", *split, "data.fold=3/groups"]
    assert groups.title == "3 groups"
    own_split = replace(seeds, split_seed=None)  # of a custom task
    assert own_split.rounds[0].sets == ["train.seed=7"]


def task_of(number, count, **more):
    variables = {"ID": number, "COUNT": count, **more}
    return array_task({f"SLURM_ARRAY_TASK_{name}": str(text) for name, text in variables.items()})


@pytest.mark.parametrize("count", [2, 4, 6, 9])
def test_the_tasks_of_an_array_share_the_rounds(count):
    tasks = [task_of(1 + 2 * number, count, MIN=1, STEP=2) for number in range(count)]
    shares = [entry.name for task in tasks for entry in task.share(STUDY.rounds)]
    assert sorted(shares) == sorted(entry.name for entry in STUDY.rounds)
    assert tasks[-1] == ArrayTask(count - 1, count)


def test_an_array_of_one_task_runs_all_and_one_with_gaps_is_refused():
    assert array_task({}) is None
    assert task_of(3, 1, MIN=3) is None
    with pytest.raises(SettingsError, match="the array of task 7 has gaps"):
        task_of(7, 3, MIN=1)


def test_a_finished_run_has_the_settings_of_now_except_what_a_machine_decides(tmp_path):
    run = resolved()
    (tmp_path / "origins.json").write_text(render_origins(run))
    assert list(differences(tmp_path, run, [])) == []
    assert list(differences(tmp_path, run, [f"train.seed={run.settings.train.seed}"])) == []

    def changed(key, value, layer=CLI_LAYER):
        origin = replace(run.values[key].origin, layer=layer)
        values = {**run.values, key: run.values[key].overridden(value, origin)}
        return [item.message for item in differences(tmp_path, replace(run, values=values), [])]

    [message] = changed("optim.lr", 0.5)
    old = run.values["optim.lr"].value
    assert message.startswith("optim.lr is 0.5, but the finished run in ")
    assert json.dumps(old) in message
    assert changed("loader.workers", 9, ENGINE_LAYER) == changed("log.every", 7) == []
    assert changed("promise", {"total_time": {"at_most": 0.1}}) == []  # judged again
    [item] = differences(tmp_path, run, ["train.seed=99"])
    assert item.message.startswith("train.seed is 99")


def test_what_a_finished_run_fitted_to_its_data_is_no_difference(tmp_path):
    run = resolved(model="abr:tiny", mode="fast")
    (tmp_path / "origins.json").write_text(render_origins(fitted(run, 2_002)))
    assert list(differences(tmp_path, run, [])) == []
    other = resolved("optim.lr=0.5", model="abr:tiny", mode="fast")
    assert [item.key for item in differences(tmp_path, other, [])] == ["optim.lr"]


def test_the_folder_of_an_earlier_stage_is_no_difference(tmp_path):
    stage = ("stages=[whole]", "model.encoder={}")
    folder = tmp_path / "run" / "2-whole"
    folder.mkdir(parents=True)

    def run(encoder):
        sets = [text.format(encoder) for text in stage]
        return resolved(*sets, model="abr:tiny", mode="staged")

    (folder / "origins.json").write_text(render_origins(run(tmp_path / "run" / "1-encoder")))
    assert list(differences(folder, run("runs/new/1-encoder"), [])) == []
    (folder / "origins.json").write_text(render_origins(run("elsewhere")))
    [item] = differences(folder, run("runs/new/1-encoder"), [])
    assert item.key == "model.encoder"
