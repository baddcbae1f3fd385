"""Data is recognised by the family that reads it, or all that is known is told."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher.data import formats
from launcher.data.formats import Recognised, recognise
from launcher.messages import SettingsError
from models.catalog import FAMILIES

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
    assert recognise(str(table), None, TYPED) == Recognised(
        "language", "CSV with input,output or prompt,response"
    )


def test_an_embedded_set_belongs_to_its_family():
    assert recognise("embedded:commands", None, TYPED) == Recognised("language", None)
    found = refused("embedded:comands")
    assert found[0] == "error: there is no embedded data 'embedded:comands'"
    assert found[-1].endswith("write  python -m launcher data check embedded:commands")


def test_a_path_that_is_not_there_is_told_with_the_nearest(table):
    assert refused(table.with_name("pair.csv")) == [
        f"error: there is no file or folder '{table.with_name('pair.csv')}'",
        f"  from     {TYPED}",
        f"  nearest  {table}; write  python -m launcher data check {table}",
    ]


def test_data_in_no_format_is_told_what_every_family_reads(tmp_path):
    (tmp_path / "a.xyz").touch()
    found = "\n".join(refused(tmp_path / "a.xyz"))
    assert f"error: '{tmp_path / 'a.xyz'}' is in no format that is known here" in found
    assert f"  from     {TYPED}\n  legal    {next(iter(FAMILIES))}: " in found
    for family in FAMILIES:
        assert f" {family}: " in found
    assert " language: " in "\n".join(refused(tmp_path / "a.xyz", "language"))


def test_data_that_two_families_read_needs_a_model(table, monkeypatch):
    twin = replace(FAMILIES["language"], name="twin")
    monkeypatch.setitem(FAMILIES, "twin", twin)
    assert refused(table)[-3:] == [
        "  legal    language: CSV with input,output or prompt,response",
        "           twin: CSV with input,output or prompt,response",
        f"  mend     write  python -m launcher data check {table} --model language",
    ]
    assert recognise(str(table), "twin", TYPED).family == "twin"


def test_a_task_of_ones_own_reads_what_it_is_given(table):
    assert recognise(str(table), "mine:Line", TYPED) == Recognised("mine:Line", None)


def test_a_file_that_may_not_be_read_is_told(table, monkeypatch):
    def fail(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(formats, "_formats", lambda family: SimpleNamespace(recognise=fail))
    assert refused(table)[0] == f"error: '{table}' cannot be read: Permission denied"
