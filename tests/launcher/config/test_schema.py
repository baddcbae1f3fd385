"""Descriptions, units and allowed values of settings are those of their declaration."""

from functools import reduce

import pytest

from gearshift.launcher.config.errors import allowed
from gearshift.launcher.config.schema import config_of, setting_infos, settings_class
from gearshift.models.catalog import FAMILIES
from tests.launcher.given import refused

LEAVES = setting_infos("language")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_has_bounds_that_a_machine_can_bear(family):
    """Also those that count processes, bytes or seconds; weights and rates need only be finite."""
    numbers = {k: info for k, info in setting_infos(family).items() if "number" in info.type}
    for key, info in numbers.items():
        counts = "whole" in info.type or info.unit is not None
        assert not counts or {"le", "lt"} & info.bounds.keys(), f"{key} has no upper bound"
    for value in ("1" + 30 * "0", ".inf", ".nan"):
        keys = [key for key, info in numbers.items() if value[0] == "." or info.bounds]
        errors = refused(
            *(f"{k}=[{value}]" if "list" in numbers[k].type else f"{k}={value}" for k in keys),
            model=family,
        )
        allowed_by_key = {error.key: error.allowed for error in errors}
        counted = {k for k in keys if value[0] == "." or {"le", "lt"} & numbers[k].bounds.keys()}
        assert counted <= allowed_by_key.keys() and all(allowed_by_key.values()), value


def test_every_setting_has_a_description_allowed_values_and_its_default():
    defaults = settings_class("language")().model_dump(by_alias=True)
    for key, info in LEAVES.items():
        assert info.description.endswith("."), key
        assert allowed(info) not in ("", "a mapping"), key
        assert info.default == reduce(lambda tree, name: tree[name], key.split("."), defaults), key
    units = {"limits.check_every_s": "seconds", "train.global_batch": "samples", "optim.lr": None}
    assert {key: LEAVES[key].unit for key in units} == units


def test_conditions_of_a_setting_name_existing_settings_and_values():
    of_families = [setting_infos(family) for family in FAMILIES]
    for leaf in LEAVES.values():
        for other, values in (leaf.only_if | leaf.unless).items():
            options = [infos[other].allowed for infos in of_families if other in infos]
            names = {name for each in options if isinstance(each, tuple) for name in each}
            assert not names or set(values) <= names


def test_sizes_are_sorted_from_small_to_large():
    for family in FAMILIES:
        counts = [size.parameters for size in config_of(family).SIZES.values()]
        assert counts == sorted(counts)
