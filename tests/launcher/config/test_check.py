"""Contradictory or probably unintended settings are reported before the start."""

import copy
import json
import pickle
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config import check
from gearshift.launcher.config.check import TrackedSettings, check_lengths, check_settings
from gearshift.launcher.config.provenance import Origin
from gearshift.launcher.config.schema import setting_infos
from gearshift.models.base import DataError
from gearshift.models.common.data_reports import install_command
from gearshift.training.train_plan import TrainPlan
from tests.launcher.given import refused, resolved


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
        (("eval.every=50", "save.every=100"), FIFTY, "warning", ["save.every"]),
        ((), {"model": "language", "max_steps": "5"}, None, []),  # a default that is longer
        (UNCAPPED, FIFTY, "error", ["schedule.warmup"]),
        (UNCAPPED[:1], FIFTY, None, []),
        (("save.last=false", "save.keep_best=0"), {}, "warning", ["save.last"]),
        (("save.last=false",), {}, None, []),
        (("optim.momentum=0.8", "unread_settings=error"), {}, "error", ["optim.momentum"]),
        (("optim.betas=[0.9, 0.95]", "optim.name=sgd"), {}, None, []),  # the default
        (("loader.prefetch=4",), {}, "warning", ["loader.prefetch"]),
        (("train.least_steps=5",), {}, "warning", ["train.least_steps"]),
        (("train.least_steps=5",), {"mode": "fast"}, None, []),
        (("download.retries=3",), {}, "warning", ["download.retries"]),
        (
            ("download.max_gb=3", "download.files=[https://a.b/c.txt]"),
            {},
            "warning",
            ["download.files"],
        ),
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
    run = resolved(
        "eval.every=3 epochs", "schedule.warmup=2 epochs", "schedule.warmup_cap=null", epochs="2"
    )
    found = list(check_lengths(run.values, run.keys, 20, 10))
    assert [(diagnostic.key, diagnostic.severity) for diagnostic in found] == [
        ("eval.every", "warning"),
        ("schedule.warmup", "error"),
    ]
    assert not list(check_lengths(run.values, run.keys, 300, 10))


def test_a_global_batch_changed_by_its_factors_warns_unless_it_is_set():
    [diagnostic] = resolved(model="language", batch_size="8").warnings
    assert diagnostic.fix == "--set train.global_batch=64"
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


def test_a_missing_pretrained_folder_is_an_error_with_the_closest_match(here):
    (here / "recordings").mkdir()
    [error] = refused("model.pretrained=recodings")
    assert (error.key, error.did_you_mean) == ("model.pretrained", "recordings")


EVERY = set(setting_infos("language"))


def task(train, val):
    return SimpleNamespace(data={"train": train, "val": val}.__getitem__)


def warns(capsys, run, words, **fields):
    """Whether a plan of 30 steps has a warning with these words."""
    fields = {"global_batch": 8, "micro_batch": 8, "accumulation": 1, **fields}
    train_plan = TrainPlan(30, world_size=1, units="tokens", **fields)
    check.check_before_training(run, train_plan, TrackedSettings(run.settings), prints=True)
    return words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "dropped", "many"), [(2, 4, True), (2, 0, False), (10, 7, False)]
)
def test_many_dropped_samples_are_reported(capsys, steps, dropped, many):
    fields = {"steps_per_epoch": steps, "dropped_samples": dropped}
    assert warns(capsys, resolved(batch_size="8"), "are dropped", **fields) is many


def test_one_split_for_two_uses_or_a_group_in_two_splits_is_refused(tmp_path):
    same = [1, 2, 3]
    with pytest.raises(DataError):
        check.check_splits(task(same, same), tmp_path)
    for val, is_shared in (["d"], False), (["b", "d"], True):
        groups = {"train": ["a", "b", "c"], "val": val, "test": ["e"]}
        (tmp_path / "split.json").write_text(json.dumps(groups))
        with pytest.raises(DataError) if is_shared else nullcontext():
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
    read = EVERY - {"train.ema", "schedule.warmup"}  # the second is of a shipped file
    [diagnostic] = check.unused_diagnostics(run, read)
    assert (diagnostic.where, diagnostic.severity) == ("--set train.ema=0.99", "error")
    assert [*check.unused_diagnostics(run, EVERY)] == []


def test_a_setting_without_effect_or_used_by_the_launcher_may_stay_unused():
    def unused(*sets, **options):
        run = resolved("schedule.cycle=30%", *sets, **options)
        return [diagnostic.key for diagnostic in check.unused_diagnostics(run, ())]

    assert unused("schedule.name=linear", model="abr:tiny") == ["schedule.name"]
    assert unused("schedule.name=cosine-restarts") == ["schedule.name", "schedule.cycle"]
    options = {"mode": "lite", "engine": "ddp", "nproc": "2"}
    assert unused("train.global_batch=16", **options) == []


def test_a_tracker_without_its_package_is_refused(monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    for track, extra in (("wandb,mlflow:mine", "mlflow"), ("tensorboard", "tensorboard")):
        (found,) = refused(f"track={track}")
        assert (found.where, found.fix) == (f"--set track={track}", install_command(extra))
