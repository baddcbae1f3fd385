"""The generated tables and outputs in README and docs are current."""

from __future__ import annotations

import re

import pytest

from gearshift.launcher.config.command_line import HELP
from gearshift.launcher.config.commands import COMMANDS
from gearshift.launcher.config.schema import config_of, sections, setting_infos
from gearshift.models.catalog import FAMILIES
from gearshift.slurm.sbatch import option_of
from scripts.write_docs import CONSOLE, ROOT, TABLE, TABLES, written
from tests.docs.pages import PATHS, read

GENERATED = [
    path
    for path in PATHS
    if (TABLE.search(text := read(path).text) or CONSOLE.search(text))
    and path.name != "ARCHITECTURE.md"  # tests/architecture/ parses the whole checkout for it
]


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_parts_of_a_page_are_current(path):
    text = read(path).text
    assert text == written(text), "run  python -m scripts.write_docs"


def test_outputs_are_those_of_gearshift_commands_and_every_table_is_on_a_page():
    texts = [read(path).text for path in PATHS]
    commands = [match["command"] for text in texts for match in CONSOLE.finditer(text)]
    assert commands and all(line.startswith("python -m launcher ") for line in commands)
    assert {match["name"] for text in texts for match in TABLE.finditer(text)} == set(TABLES)


def test_every_setting_is_on_the_page_of_settings():
    text = read(ROOT / "docs" / "settings.md").text
    keys = {key for family in FAMILIES for key in setting_infos(family)}
    assert {key for key in keys if f"\n| `{key}` | " not in text} == set()


def test_the_page_of_a_family_has_the_exact_parameters_of_each_size():
    for family in FAMILIES:
        page = read(ROOT / "docs" / f"{family.replace('_', '-')}.md").text
        counts = [f"{size.parameters:,}" for size in config_of(family).SIZES.values()]
        assert [count for count in counts if count not in page] == [], family


CODE = re.compile(r"`(?P<flag>--[a-z][a-z0-9-]*)[^`\n]*`|`(?P<key>[a-z_]+(?:\.[a-z0-9_]+)+)`")
OTHER_PROGRAMS = {"AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "originals.md", "results.md"}
"""Pages that name options of other programs, or of earlier versions."""
OTHERS = {"model.width", "model.folder", "memory.oom.group"}
"""Settings of custom tasks, and a file of control groups."""
FILES = (".html", ".json", ".jsonl", ".md", ".onnx", ".py", ".safetensors", ".txt", ".yaml")


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path.name not in OTHER_PROGRAMS], ids=lambda path: path.name
)
def test_options_and_settings_that_a_page_names_exist(path):
    flags = {option.flag for command in COMMANDS.values() for option in command.options} | {
        HELP.flag
    }
    keys = {
        key for family in FAMILIES for key in {*setting_infos(family), *sections(family)}
    } | OTHERS
    tops = {key.partition(".")[0] for key in keys}
    for match in CODE.finditer(read(path).text):
        flag, key = match["flag"], match["key"]
        if flag:
            assert flag in flags or option_of(flag), match[0]
        elif key.partition(".")[0] in tops and not key.endswith(FILES):
            assert key in keys, match[0]
