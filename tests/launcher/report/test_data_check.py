"""Data is matched to the families that read it."""

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.report.data_check import find_families
from gearshift.models.catalog import FAMILIES

ORIGIN = "the command line: data check mine"


def error_lines(path):
    with pytest.raises(SettingsError) as wrong:
        find_families(str(path), None, ORIGIN)
    return str(wrong.value).splitlines()


def test_an_embedded_dataset_belongs_to_its_family():
    assert find_families("embedded:commands", None, ORIGIN) == [("language", None)]
    assert error_lines("embedded:comands")[-1].endswith(" embedded:commands")


def test_an_unknown_format_lists_the_formats_of_every_family(tmp_path):
    (tmp_path / "a.xyz").touch()
    found = "\n".join(error_lines(tmp_path / "a.xyz"))
    assert f"  where         {ORIGIN}\n" in found
    for family in FAMILIES:
        assert f" {family}: " in found
    named = find_families(str(tmp_path / "a.xyz"), "language", ORIGIN)
    assert named == [("language", None)]
