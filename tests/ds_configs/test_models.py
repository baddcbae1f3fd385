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

TABLE = Path(__file__).with_name("mode_table.md")


def rows():
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        (mode, key, yaml_source.value(value))
        for _, key, default, lean in cells
        for mode, value in (("default", default), ("resource-efficient", lean))
    ]


@pytest.fixture(scope="module")
def runs():
    """Both modes on a machine that has what the family asks for, one process."""
    return {
        mode: resolved(model="language", mode=mode, machine=SERVER, world_size=1)
        for mode in ("default", "resource-efficient")
    }


@pytest.mark.parametrize(("mode", "key", "value"), rows())
def test_each_value_is_that_of_the_mode_table(runs, mode, key, value):
    assert runs[mode].values[key].value == value


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


def test_the_family_block_of_a_mode_has_every_value_that_the_table_changes():
    block = shipped.family("language").modes["resource-efficient"]
    own = {key for key, _ in flat(block.settings, sections("language"))}
    table = {}
    for mode, key, value in rows():
        table.setdefault(key, {})[mode] = value
    changed = {key for key, by_mode in table.items() if len(set(by_mode.values())) > 1}
    assert changed <= own
