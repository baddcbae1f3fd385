"""Profiles of machines: values for every family, above any mode, below settings of the user."""

from __future__ import annotations

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.schema import config_of
from tests.ds_configs.tables import SHIPPED
from tests.launcher.given import SERVER, resolved

SIZES = [f"{family}:{size}" for family in SHIPPED for size in config_of(family).SIZES]
MAC = {
    **{"train.micro_batch": 1, "train.accumulation": 32, "optim.lr": 3e-5, "data.seq_len": 256},
    **{"loader.workers": 0, "precision": "fp32", "save.every": 100, "eval.every": 25},
    **{"limits.ram": 60, "limits.gpu": 70, "limits.swap": 25, "limits.check_every_s": 10},
}
CPU_ONLY = {
    **{"train.micro_batch": 1, "train.accumulation": 64, "optim.lr": 1e-5, "data.seq_len": 128},
    **{"loader.workers": 0, "precision": "fp32", "device": "cpu", "save.every": 50},
    **{"eval.every": 10, "limits.ram": 50, "limits.swap": 20, "limits.check_every_s": 5},
}
TABLE = {"mac": MAC, "cpu-only": CPU_ONLY}
"""From the specification of the models."""


@pytest.mark.parametrize("profile", TABLE)
@pytest.mark.parametrize("mode", [None, "resource-efficient"])
def test_a_profile_has_the_values_of_the_table_whatever_the_mode(profile, mode):
    options = {"model": "language:full", "mode": mode, "machine": SERVER, "nproc": "1"}
    run = resolved(f"limits.profile={profile}", **options)

    assert {key: run.values[key].value for key in TABLE[profile]} == TABLE[profile]
    assert {run.values[key].origin.layer for key in TABLE[profile]} == {"limits profile"}
    assert run.values["limits.critical.ram"].value == 95


def test_a_profile_is_below_settings_of_the_user_and_only_lowers_what_a_small_size_has():
    run = resolved("limits.profile=mac", "limits.ram=80", lr="1e-3")
    assert (run.settings.limits.ram, run.settings.optim.lr) == (80, 1e-3)
    tiny = resolved("limits.profile=mac", model="language:tiny")
    assert tiny.settings.data.seq_len == 128


@pytest.mark.parametrize("profile", TABLE)
def test_a_profile_of_the_table_resolves_for_every_size_and_skips_settings_a_family_has_not(
    profile,
):
    preset = presets.mode(profile, "profiles")
    assert {line.key for line in preset.lines} == set(TABLE[profile]) and 20 < len(
        preset.sentence
    ) < 90
    for model in SIZES:
        for mode in ("default", "resource-efficient"):
            run = resolved(f"limits.profile={profile}", model=model, mode=mode)
            assert run.settings.train.micro_batch == 1, (model, mode)
