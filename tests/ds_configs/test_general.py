"""A mode outside its home family has the values of the specification."""

import math

import pytest

from gearshift.launcher.config import settings_file
from gearshift.launcher.config.schema import setting_infos
from tests.ds_configs.tables import FOLDER, SHIPPED, cells, rows
from tests.launcher.given import ONE_GPU, resolved

HOME = {
    "lite": "event_seg",
    "resource-efficient": "language",
    "fast": "abr",
    "ultra-fast": "abr",
    "conservative": "doc_translation",
}
GENERAL, EXCEPTIONS = (FOLDER / "general_table.md").read_text().split("Where a family cannot")
OTHERWISE = {
    (family, mode, key) for family, mode, keys, _ in rows(EXCEPTIONS)[1:] for key in keys.split()
}
CELLS = {
    (family, mode): {
        key: written
        for name, key, written in cells(GENERAL)
        if name == mode and key in setting_infos(family) and (family, mode, key) not in OTHERWISE
    }
    for family in SHIPPED
    for mode in HOME
    if HOME[mode] != family
}


def times(default, factor):
    """`factor` × a number, rounded to at least 1 for integers, or × a length in epochs."""
    if default is None:
        return None
    if isinstance(default, str):
        number, unit = default.rstrip("s%").strip().partition(" epoch")[:2]
        return (float(number) * factor, unit or "%")
    if isinstance(default, int):
        return max(1, math.floor(default * factor + 0.5)) if default else 0
    return default * factor


def number(value):
    """A length as `times` gives it."""
    return times(value, 1) if isinstance(value, str) and value[0].isdigit() else value


@pytest.fixture(scope="module")
def runs():
    """Each family in each mode, at its default size, beside the default of the size it takes."""
    found = {}
    for family in SHIPPED:
        for mode in HOME:
            run = resolved(model=family, mode=mode, machine=ONE_GPU)
            size = run.settings.model.size
            default = resolved(model=f"{family}:{size}", machine=ONE_GPU)
            found[family, mode] = (default.values, run.values)
    return found


@pytest.mark.parametrize(("family", "mode"), CELLS)
def test_each_value_is_the_default_changed_by_the_mode(runs, family, mode):
    before, after = runs[family, mode]
    for key, written in CELLS[family, mode].items():
        default, found = before[key].value, after[key].value
        if written.startswith("× "):
            expected = times(default, float(written.removeprefix("× ")))
            if (mode, key) == ("lite", "train.epochs"):
                expected = max(1, expected)
            assert number(found) == pytest.approx(expected), key
        elif key == "loader.workers" and not default:
            assert found == 0  # in the training process: there is no smaller number
        elif key == "memory.attention" and after["precision"].value == "fp32":
            assert found == "auto"  # flash attention needs 16 bits
        else:
            assert found == settings_file.parse_yaml_value(written), key


def test_lite_selects_the_next_smaller_size(runs):
    sizes = {family: runs[family, "lite"][1]["model.size"].value for family in SHIPPED}
    assert sizes == {**dict.fromkeys(SHIPPED, "lite"), "doc_translation": "tiny"}


def test_every_changed_value_names_its_origin(runs):
    for name, (default, found) in runs.items():
        changed = {key: value for key, value in found.items() if value.value != default[key].value}
        layers = {value.origin.layer for key, value in changed.items() if key != "mode"}
        assert layers <= {"mode", "adapted to this machine"}, name
