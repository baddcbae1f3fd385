"""Every family's file gives the values of its specification."""

from pathlib import Path

import pytest

from launcher.files import yaml_source
from launcher.settings import shipped
from launcher.settings.entries import flat
from launcher.settings.leaves import leaves, sections
from launcher.settings.schema import config_of
from models.catalog import FAMILIES
from tests.launcher.given import SERVER, resolved


def table(path):
    """Of `<family>_table.md`: (mode, key, value) of each cell but the dashes.

    Its columns are the setting in words, its key, and a mode each.
    """
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        (mode, cells[1], yaml_source.value(written))
        for cells in rows
        for mode, written in zip(head[2:], cells[2:], strict=True)
        if written != "–"
    ]


TABLES = {
    path.stem.removesuffix("_table"): table(path)
    for path in sorted(Path(__file__).parent.glob("*_table.md"))
}
CELLS = [(family, *cell) for family, cells in TABLES.items() for cell in cells]
COLUMNS = sorted({(family, mode) for family, mode, *_ in CELLS})


@pytest.fixture(scope="module")
def runs():
    """Each column on a machine that has what the family asks for, one process."""
    return {
        (family, mode): resolved(model=family, mode=mode, machine=SERVER, world_size=1)
        for family, mode in COLUMNS
    }


@pytest.mark.parametrize(("family", "mode", "key", "value"), CELLS)
def test_each_value_is_that_of_the_mode_table(runs, family, mode, key, value):
    assert runs[family, mode].values[key].value == value


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_without_a_file_is_found(family):
    assert (shipped.FOLDER / "models" / f"{family}.yaml").is_file()


def test_every_file_belongs_to_a_family():
    assert {path.stem for path in (shipped.FOLDER / "models").glob("*.yaml")} == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_name_sizes_modes_and_settings_that_exist(family):
    found = shipped.family(family)
    sizes = set(config_of(family).SIZES)
    assert set(found.sizes) <= sizes
    assert set(found.modes) <= set(shipped.modes())
    assert {size for size, _ in found.size_modes} <= sizes
    assert {mode for _, mode in found.size_modes} <= set(shipped.modes())
    blocks = [found.default, *found.sizes.values(), *found.modes.values()]
    for block in [*blocks, *found.size_modes.values()]:
        assert {key for key, _ in flat(block.settings, sections(family))} <= set(leaves(family))


@pytest.mark.parametrize("size", config_of("language").SIZES)
def test_samples_are_as_long_as_the_context_of_the_size(size):
    run = resolved(model=f"language:{size}")
    assert run.settings.data.seq_len == config_of("language").SIZES[size].context


@pytest.mark.parametrize(("family", "mode"), [c for c in COLUMNS if c[1] != "default"])
def test_the_family_block_of_a_mode_has_every_value_that_the_table_changes(family, mode):
    block = shipped.family(family).modes[mode]
    own = {key for key, _ in flat(block.settings, sections(family))}
    by_mode = {
        name: {k: v for m, k, v in TABLES[family] if m == name} for name in (mode, "default")
    }
    changed = {key for key, value in by_mode[mode].items() if value != by_mode["default"].get(key)}
    # What is solved from the batch of a rank is no setting of the block.
    assert changed - {"train.global_batch"} <= own
