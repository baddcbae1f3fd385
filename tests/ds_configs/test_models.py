"""Every family's file gives the values of its specification."""

from itertools import product

import pytest

from gearshift.launcher.config import presets, settings_file
from gearshift.launcher.config.schema import config_of, setting_infos
from gearshift.models.catalog import FAMILIES, stages_of
from tests.ds_configs.tables import FOLDER, SHIPPED, cells
from tests.launcher.given import SERVER, resolved

TABLES = {
    family: [
        (mode, key, settings_file.parse_yaml_value(written))
        for mode, key, written in cells((FOLDER / f"{family}_table.md").read_text())
    ]
    for family in SHIPPED
}
COLUMNS = sorted({(family, mode) for family, cells in TABLES.items() for mode, *_ in cells})


def staged(family, column):
    """The stage of a column such as `staged 1`; None: the column has no stage."""
    _, _, number = column.partition(" ")
    return stages_of(family)[int(number) - 1] if number else None


def column(family, mode):
    """A column's settings on a machine that supports the family, one process."""
    options = {"model": family, "mode": mode, "machine": SERVER, "world_size": 1}
    stage = staged(family, mode)
    if stage is None:
        return resolved(**options)
    weights = [f"{stage.loads}=earlier"] if stage.loads else []
    return resolved(f"stages=[{stage.name}]", *weights, **{**options, "mode": "staged"})


@pytest.mark.parametrize(("family", "mode"), COLUMNS)
def test_each_value_is_that_of_the_mode_table(family, mode):
    values = column(family, mode).values
    expected = {key: value for name, key, value in TABLES[family] if name == mode}
    assert {key: values[key].value for key in expected} == expected


@pytest.mark.parametrize("family", SHIPPED)
def test_blocks_name_sizes_modes_and_settings_that_exist(family):
    found = presets.family(family)
    sizes = set(config_of(family).SIZES)
    stages = {stage.name for stage in stages_of(family)}
    given = [("given", key) for key in setting_infos(family)]
    blocks = [*product(("modes",), presets.modes()), *product(("stages",), stages)]
    blocks += [("sizes", size, *block) for size in sizes for block in ((), *blocks)]
    by_block = {block: found.block(*block) for block in (("default",), *given, *blocks)}
    assert sum(map(len, by_block.values())) == len(found.lines)  # each line is of one of these
    assert all(by_block["stages", stage] for stage in stages)
    assert {line.key for lines in by_block.values() for line in lines} <= {*setting_infos(family)}
    assert {path.stem for path in (presets.FOLDER / "models").glob("*.yaml")} == set(FAMILIES)


def test_samples_are_as_long_as_the_context_of_the_size():
    for name, size in config_of("language").SIZES.items():
        assert resolved(model=f"language:{name}").settings.data.seq_len == size.context
