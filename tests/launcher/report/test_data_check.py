"""Data is matched to the families that read it."""

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.report.data_check import Match, find_families
from models.catalog import FAMILIES

ORIGIN = "the command line: data check mine"


def error_lines(path, family=None):
    with pytest.raises(SettingsError) as wrong:
        find_families(str(path), family, ORIGIN)
    return str(wrong.value).splitlines()


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
