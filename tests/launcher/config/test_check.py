"""Contradictory or probably unintended settings are reported before the start."""

import copy
import json
import pickle
from types import SimpleNamespace

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config import check
from launcher.config.check import TrackedSettings, check_settings, check_train_plan
from launcher.config.provenance import KeySets, Origin, Setting
from launcher.config.schema import setting_infos
from models.base import DataError
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.launcher.given import refused, resolved
from training.train_plan import TrainPlan


def found(*sets, **options):
    """Severity and key of the errors of a start, or else of its warnings."""
    try:
        diagnostics = resolved(*sets, **options).warnings
    except SettingsError as error:
        diagnostics = error.diagnostics
    return [(d.severity, d.key) for d in diagnostics]


UNCAPPED, FIFTY = ("schedule.warmup=90", "schedule.warmup_cap=null"), {"max_steps": "50"}


@pytest.mark.parametrize(
    ("sets", "options", "severity", "keys"),
    [
        (("eval.every=100",), FIFTY, "warning", ["eval.every"]),
        (("save.every=100",), FIFTY, "warning", ["save.every"]),
        (("eval.every=50", "save.every=50"), FIFTY, None, []),
        ((), {"model": "language", "max_steps": "5"}, None, []),  # a default that is longer
        (UNCAPPED, FIFTY, "error", ["schedule.warmup"]),
        (UNCAPPED[:1], FIFTY, None, []),
        (("save.last=false", "save.keep_best=0"), {}, "warning", ["save.last"]),
        (("save.last=false",), {}, None, []),
        (("optim.momentum=0.8",), {}, "warning", ["optim.momentum"]),
        (("optim.momentum=0.8", "unread_settings=error"), {}, "error", ["optim.momentum"]),
        (("optim.momentum=0.8", "optim.name=sgd"), {}, None, []),
        (("optim.betas=[0.9, 0.95]", "optim.name=sgd"), {}, None, []),  # the default
        (("loader.prefetch=4",), {}, "warning", ["loader.prefetch"]),
    ],
)
def test_what_never_happens_or_has_no_effect_is_reported(sets, options, severity, keys):
    assert found(*sets, **options) == [(severity, key) for key in keys]


def test_a_part_of_the_model_needs_a_factor_that_trains_it():
    for factor in ("0", "-1", ".inf", ".nan"):
        (error,) = refused(f"optim.groups={{head: {factor}}}", model="abr")
        assert (error.key, error.allowed.endswith("above 0")) == ("optim.groups", True)
    (error,) = refused("optim.groups.encoder=0.1")
    assert error.did_you_mean == "optim.groups"


def test_with_the_dataset_size_known_lengths_in_epochs_are_checked():
    run = resolved("eval.every=3 epochs", "schedule.warmup=2 epochs", "schedule.warmup_cap=null", epochs="2")
    found = check_train_plan(run, total_steps=20, steps_per_epoch=10)
    assert [(diagnostic.key, diagnostic.severity) for diagnostic in found] == [
        ("eval.every", "warning"),
        ("schedule.warmup", "error"),
    ]
    assert check_train_plan(run, total_steps=300, steps_per_epoch=10) == []


def test_a_global_batch_changed_by_its_factors_warns_unless_it_is_set():
    [diagnostic] = resolved(model="language", batch_size="8").warnings
    assert diagnostic.message == "the global batch is 32 instead of 64, by train.micro_batch"
    assert diagnostic.fix == (
        "--set train.global_batch=64  to keep it, or  --set train.global_batch=32  to confirm"
    )
    for sets in (
        ["global_batch=32"],
        ["micro_batch=8", "accumulation=8"],
        ["micro_batch=8", "global_batch=32"],
    ):
        assert found(*(f"train.{text}" for text in sets), model="language") == []


def test_a_mode_that_changes_nothing_warns():
    run = resolved()
    values, mode = dict(run.values), run.values["mode"]
    values["mode"] = mode.overridden("fast", Origin("command line", "--mode fast"))
    messages = [diagnostic.message for diagnostic in check_settings(values, run.keys)]
    assert messages == ["mode 'fast' changes nothing"]


def test_a_mode_that_keeps_the_batch_needs_numbers_that_divide():
    run = resolved(model="language", mode="conservative")
    values, halved = dict(run.values), run.values["train.accumulation"]
    values["train.accumulation"] = Setting(2, halved.origin, [(3, origin) for _, origin in halved.replaced])
    [diagnostic] = check_settings(values, KeySets.of(values))
    assert (diagnostic.key, diagnostic.severity) == ("mode", "error")
    assert diagnostic.fix == "--set train.global_batch=48"


def test_a_promise_of_a_size_that_no_family_has_is_refused():
    known = "promise={step_time: {at_most: 1, sizes: [tiny]}}"
    assert found(known, model="language:tiny", mode="fast") == []
    [error] = refused(known.replace("tiny", "tinny"), model="language:tiny", mode="fast")
    assert (error.key, error.did_you_mean) == ("promise", "tiny")


def test_a_missing_path_is_an_error_with_the_closest_match(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").mkdir()
    for key in ("data.path", "model.pretrained"):
        [error] = refused(f"{key}=recodings")
        message = f"{key} 'recodings' does not exist ({tmp_path / 'recodings'})"
        assert (error.message, error.did_you_mean) == (message, "recordings")
        assert found(f"{key}=") == [("error", key)]


def test_stages_and_deepspeed_files_need_a_task_and_an_engine_for_them(tmp_path, monkeypatch):
    path = tmp_path / "ds.json"
    path.write_text("{}")
    assert [error.key for error in refused(f"engine.ds_config={path}", engine="ddp")] == ["engine.ds_config"]
    resolved(f"engine.ds_config={path}", engine="zero2")
    monkeypatch.syspath_prepend(tmp_path)
    model = f"{write(tmp_path, HEAD + LINE + BODY)}:Line"
    assert found(model=model, mode="staged") == [("error", "mode")]
    assert found("stages=[encoder]", model=model) == [("error", "stages")]


EVERY = set(setting_infos("language"))


def task(train, val):
    return SimpleNamespace(data={"train": train, "val": val}.__getitem__)


@pytest.mark.parametrize(("steps", "dropped", "warns"), [(2, 4, True), (2, 0, False), (10, 7, False)])
def test_many_dropped_samples_are_reported(capsys, steps, dropped, warns):
    run = resolved(batch_size="8")
    fields = {"steps_per_epoch": steps, "dropped_samples": dropped, "micro_batch": 8, "accumulation": 1}
    train_plan = TrainPlan(30, world_size=1, units="tokens", global_batch=8, **fields)
    check.check_before_training(run, train_plan, TrackedSettings(run.settings), prints=True)
    assert ("are dropped" in capsys.readouterr().err) is warns


PLATEAU = ("schedule.name=plateau", "schedule.patience=2")


@pytest.mark.parametrize(
    ("sets", "plan", "needs"),
    [
        (("stop.patience=3",), {}, 4),
        (("stop.patience=3",), {"eval_every": 8}, 4),
        (("stop.patience=3",), {"eval_every": 7}, None),  # at 7, 14, 21, 28 of 30 steps
        (("stop.patience=3",), {"eval_every": 8, "first_step": 3}, None),  # it has waited before
        (("stop.patience=3",), {"eval_every": 7, "stop_after": 28}, 4),
        (PLATEAU, {"eval_each_epoch": True}, 3),
        (PLATEAU, {"eval_every": 9}, None),
    ],
)
def test_a_patience_with_too_few_evaluations_warns(capsys, sets, plan, needs):
    run = resolved(*sets, batch_size="8")
    fields = {"steps_per_epoch": 10, "global_batch": 8, "micro_batch": 8, "accumulation": 1, **plan}
    train_plan = TrainPlan(30, world_size=1, units="tokens", **fields)
    check.check_before_training(run, train_plan, TrackedSettings(run.settings), prints=True)
    err = capsys.readouterr().err
    assert ("cannot act" in err) is (needs is not None)
    assert needs is None or f" {needs} evaluations" in err


def test_one_split_for_two_uses_or_a_group_in_two_splits_is_refused(tmp_path):
    same = [1, 2, 3]
    with pytest.raises(DataError, match="the task trains and validates on the same samples"):
        check.check_splits(task(same, same), tmp_path)
    groups = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}
    (tmp_path / "split.json").write_text(json.dumps(groups))
    check.check_splits(task([1], [2]), tmp_path)
    groups["val"] = ["b", "d"]
    (tmp_path / "split.json").write_text(json.dumps(groups))
    with pytest.raises(DataError, match="1 groups are in two splits, such as b"):
        check.check_splits(task([1], [2]), tmp_path)


def test_a_view_remembers_the_leaves_that_were_read_and_is_as_strict_as_the_settings():
    view = TrackedSettings(resolved().settings)
    critical = view.limits.critical
    assert check.settings_read(view) == frozenset()
    assert critical.ram == 95
    assert view.train.epochs == 100
    assert check.settings_read(view) == {"limits.critical.ram", "train.epochs"}
    assert check.settings_read(view.train) == check.settings_read(view)
    for twin in (pickle.loads(pickle.dumps(view.data)), copy.deepcopy(view.data)):
        assert twin.seq_len == view.data.seq_len
    with pytest.raises(AttributeError):
        _ = view.train.epoch
    with pytest.raises(AttributeError):
        view.train.epochs = 3


def test_an_unused_setting_is_reported_with_its_origin():
    run = resolved("train.ema=0.99", "unread_settings=error", lr="1e-3")
    # Of the settings that nothing reads, those of shipped layers are found by tests only.
    read = EVERY - {"train.ema", "schedule.warmup", "optim.eps"}
    [diagnostic] = check.unused_diagnostics(run, read)
    assert diagnostic.message == "train.ema 0.99 is unused: nothing in this run reads it"
    assert (diagnostic.where, diagnostic.severity) == ("--set train.ema=0.99", "error")
    assert check.unused_keys(run.values, read) == ["train.ema", "schedule.warmup"]
    assert [*check.unused_diagnostics(run, EVERY)] == []
    by_default = resolved("train.ema=0.99")
    [diagnostic] = check.unused_diagnostics(by_default, EVERY - {"train.ema"})
    assert diagnostic.severity == "warning"


def test_a_setting_without_effect_or_used_by_the_launcher_may_stay_unused():
    mute = {"schedule.cycle", "schedule.t_mult"}
    run = resolved("schedule.name=linear", mode="fast")
    assert run.values["schedule.cycle"].origin.layer == "mode"
    assert check.unused_keys(run.values, EVERY - mute) == []
    restarts = resolved("schedule.name=cosine-restarts", mode="fast")
    assert set(check.unused_keys(restarts.values, EVERY - mute)) == mute
    run = resolved("train.global_batch=16", mode="lite", engine="ddp", nproc="2")
    assert not set(check.unused_keys(run.values, ())) & check.BY_THE_LAUNCHER


def test_a_tracker_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    (found,) = refused("track=wandb,mlflow:mine")
    assert found.message == "tracker mlflow requires the package mlflow"
    assert found.fix == "pip install 'gearshift[mlflow]'"
