"""Data is recognised by the family that reads it, or all that is known is told."""

import importlib
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.base.diagnostics import SettingsError, render
from launcher.config.schema import setting_infos
from launcher.data_check import formats
from launcher.data_check.formats import Recognised, recognise, several
from models.catalog import FAMILIES
from models.language.formats import FORMATS

CSV = FORMATS[0]
TYPED = "the command line: data check mine"


def refused(path, family=None):
    with pytest.raises(SettingsError) as wrong:
        recognise(str(path), family, TYPED)
    return str(wrong.value).splitlines()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("input,output\na,b\n")
    return path


def test_the_family_and_the_format_of_a_file_are_found(table):
    assert Recognised("language", CSV) in recognise(str(table), None, TYPED)


def test_an_embedded_set_belongs_to_its_family():
    assert recognise("embedded:commands", None, TYPED) == [Recognised("language", None)]
    found = refused("embedded:comands")
    assert found[0] == "error: there is no embedded data 'embedded:comands'"
    assert found[-1].endswith("python -m launcher data check embedded:commands")


def test_a_path_that_is_not_there_is_told_with_the_nearest(table):
    assert refused(table.with_name("pair.csv")) == [
        f"error: there is no file or folder '{table.with_name('pair.csv')}'",
        f"  where         {TYPED}",
        f"  did you mean  {table}",
        f"  fix           python -m launcher data check {table}",
    ]


def test_data_in_no_format_is_told_what_every_family_reads(tmp_path):
    (tmp_path / "a.xyz").touch()
    found = "\n".join(refused(tmp_path / "a.xyz"))
    assert f"error: '{tmp_path / 'a.xyz'}' is in no format that is known here" in found
    assert f"  where         {TYPED}\n  allowed       {next(iter(FAMILIES))}: " in found
    for family in FAMILIES:
        assert f" {family}: " in found
    named = recognise(str(tmp_path / "a.xyz"), "language", TYPED)
    assert named == [Recognised("language", None)]


def test_all_families_that_take_it_for_theirs_are_found(table, monkeypatch):
    twin = replace(FAMILIES["language"], name="twin")
    monkeypatch.setitem(FAMILIES, "twin", twin)
    found = recognise(str(table), None, TYPED)
    assert {Recognised("language", CSV), Recognised("twin", CSV)} <= set(found)
    assert recognise(str(table), "twin", TYPED) == [Recognised("twin", CSV)]
    twins = [Recognised("language", CSV), Recognised("twin", CSV)]
    assert render([several("mine.csv", TYPED, twins)]) == (
        "error: 'mine.csv' is data of several families\n"
        f"  where         {TYPED}\n"
        f"  allowed       language: {CSV}\n"
        f"           twin: {CSV}\n"
        "  fix           python -m launcher data check mine.csv --model language"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_embedded_data_that_a_family_speaks_of_is_among_its_names(family):
    said = setting_infos(family)["data.path"].description
    named = set(importlib.import_module(FAMILIES[family].formats).EMBEDDED)
    assert named
    assert set(re.findall(r"embedded:[a-z0-9-]+", said)) <= named


def test_a_task_of_ones_own_reads_what_it_is_given(table):
    assert recognise(str(table), "mine:Line", TYPED) == [Recognised("mine:Line", None)]


def test_a_file_that_may_not_be_read_is_told(table, monkeypatch):
    def fail(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(formats, "_formats", lambda family: SimpleNamespace(recognise=fail))
    assert refused(table)[0] == f"error: '{table}' cannot be read: Permission denied"
