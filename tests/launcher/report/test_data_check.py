"""Data is matched to the families that read it."""

import importlib
import re
from types import SimpleNamespace

import pytest

from launcher.base.diagnostics import SettingsError, render
from launcher.config.schema import setting_infos
from launcher.report import data_check
from launcher.report.data_check import Match, find_families, several
from models.catalog import FAMILIES
from models.language.formats import FORMATS

CSV = FORMATS[0]
ORIGIN = "the command line: data check mine"


def error_lines(path, family=None):
    with pytest.raises(SettingsError) as wrong:
        find_families(str(path), family, ORIGIN)
    return str(wrong.value).splitlines()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("input,output\na,b\n")
    return path


def test_an_embedded_dataset_belongs_to_its_family():
    assert find_families("embedded:commands", None, ORIGIN) == [Match("language", None)]
    found = error_lines("embedded:comands")
    assert found[0] == "error: unknown embedded data 'embedded:comands'"
    assert found[-1].endswith("python -m launcher data check embedded:commands")


def test_an_unknown_format_lists_the_formats_of_every_family(tmp_path):
    (tmp_path / "a.xyz").touch()
    found = "\n".join(error_lines(tmp_path / "a.xyz"))
    assert f"error: unknown data format: '{tmp_path / 'a.xyz'}'" in found
    assert f"  where         {ORIGIN}\n  allowed       {next(iter(FAMILIES))}: " in found
    for family in FAMILIES:
        assert f" {family}: " in found
    named = find_families(str(tmp_path / "a.xyz"), "language", ORIGIN)
    assert named == [Match("language", None)]


def test_all_families_that_match_are_found(table, monkeypatch):
    monkeypatch.setitem(FAMILIES, "twin", FAMILIES["language"])
    found = find_families(str(table), None, ORIGIN)
    assert {Match("language", CSV), Match("twin", CSV)} <= set(found)
    assert find_families(str(table), "twin", ORIGIN) == [Match("twin", CSV)]
    assert find_families(str(table), "mine:Line", ORIGIN) == [Match("mine:Line", None)]
    twins = [Match("language", CSV), Match("twin", CSV)]
    assert render([several("mine.csv", ORIGIN, twins)]) == (
        "error: 'mine.csv' can be read by several families\n"
        f"  where         {ORIGIN}\n"
        f"  allowed       language: {CSV}\n"
        f"           twin: {CSV}\n"
        "  fix           python -m launcher data check mine.csv --model language"
    )


def test_embedded_data_in_a_description_exists():
    for family, declared in FAMILIES.items():
        description = setting_infos(family)["data.path"].description
        named = set(importlib.import_module(declared.formats).EMBEDDED)
        assert named, family
        assert set(re.findall(r"embedded:[a-z0-9-]+", description)) <= named, family


def test_an_unreadable_file_is_an_error(table, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(data_check, "_formats", lambda family: SimpleNamespace(recognize=fail))
    assert error_lines(table)[0] == f"error: '{table}' cannot be read: Permission denied"
