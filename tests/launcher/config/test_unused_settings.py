"""A setting that decides something and is read by nobody is found."""

import copy
import pickle

import pytest

from launcher.config import late_checks
from launcher.config.late_checks import TrackedSettings
from launcher.config.schema import get, setting_infos
from tests.launcher.given import resolved


def read(view, keys):
    for key in keys:
        get(view, key)
    return late_checks.settings_read(view)


def test_only_the_leaves_that_were_read_are_remembered():
    view = TrackedSettings(resolved().settings)
    critical = view.limits.critical
    assert late_checks.settings_read(view) == frozenset()
    assert critical.ram == 95
    assert view.train.epochs == 100
    assert late_checks.settings_read(view) == {"limits.critical.ram", "train.epochs"}
    assert late_checks.settings_read(view.train) == late_checks.settings_read(view)


def test_a_view_is_as_strict_as_the_settings():
    view = TrackedSettings(resolved().settings)
    with pytest.raises(AttributeError):
        _ = view.train.epoch
    with pytest.raises(
        AttributeError, match=r"settings cannot change after they are resolved: train\.epochs"
    ):
        view.train.epochs = 3


def test_a_section_can_be_copied_and_sent_to_another_process():
    view = TrackedSettings(resolved().settings)
    for twin in (pickle.loads(pickle.dumps(view.data)), copy.deepcopy(view.data)):
        assert twin.seq_len == view.data.seq_len


def test_a_setting_that_nobody_read_is_found_with_its_origin():
    run = resolved("train.ema=0.99", "unread_settings=error", lr="1e-3")
    every = set(setting_infos("language"))
    [fault] = late_checks.unused_diagnostics(run, every - {"train.ema", "optim.weight_decay"})
    assert fault.message == "train.ema 0.99 is unused: nothing in this run reads it"
    assert (fault.where, fault.severity) == ("--set train.ema=0.99", "error")
    assert late_checks.unused_diagnostics(run, every) == []


def test_for_a_person_it_is_a_warning_unless_they_ask_for_more():
    [fault] = late_checks.unused_diagnostics(
        resolved("train.ema=0.99"), set(setting_infos("language")) - {"train.ema"}
    )
    assert fault.severity == "warning"


def test_what_the_program_itself_sets_and_nobody_reads_is_found_by_tests_only():
    run = resolved(model="language")
    every = set(setting_infos("language"))
    assert late_checks.unused_keys(run.values, every - {"schedule.warmup", "optim.eps"}) == [
        "schedule.warmup"
    ]
    assert late_checks.unused_diagnostics(run, every - {"schedule.warmup"}) == []


def test_what_another_setting_makes_meaningless_need_not_be_read():
    every = set(setting_infos("language"))
    mute = {"schedule.cycle", "schedule.t_mult"}
    run = resolved("schedule.name=linear", mode="fast")
    assert run.values["schedule.cycle"].origin.layer == "mode"
    assert late_checks.unused_keys(run.values, every - mute) == []
    assert set(late_checks.unused_keys(resolved(mode="fast").values, every - mute)) == mute


def test_what_resolve_acts_on_need_not_be_read_again():
    run = resolved("train.global_batch=16", mode="lite", engine="ddp", nproc="2")
    assert not set(late_checks.unused_keys(run.values, ())) & late_checks.BY_THE_LAUNCHER
