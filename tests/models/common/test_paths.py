from __future__ import annotations

import pytest

from models.base import DataError
from models.common import paths


def test_a_path_that_is_not_there_is_told_with_what_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        paths.existing("nowhere", "a folder of recordings")
    assert str(error.value) == (
        "data.path 'nowhere' does not exist\n"
        f"  where         looked for {tmp_path / 'nowhere'}\n"
        "  allowed       a folder of recordings"
    )


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").touch()
    assert paths.existing("~/here", "") == tmp_path / "here"


def test_files_of_a_folder_come_by_name_without_hidden_ones(tmp_path):
    for name in ("b/2", "a/1", ".hidden/x", "a/.x", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in paths.files(tmp_path)]
    assert found == ["a/1", "b/2", "c"]
    assert paths.files(tmp_path / "c") == [tmp_path / "c"]


def test_a_file_that_the_system_does_not_open_is_told_with_its_reason(tmp_path):
    try:
        (tmp_path / "gone").read_bytes()
    except OSError as error:
        told = paths.unreadable(tmp_path, error)
    assert told.what == f"'{tmp_path / 'gone'}' cannot be read: No such file or directory"


def test_an_embedded_name_that_there_is_not_has_a_nearest():
    error = paths.unknown_embedded("embedded:comands", ["embedded:python", "embedded:commands"])
    assert error.fix == "nearest  embedded:commands; write  --data embedded:commands"


def test_data_in_no_known_format_is_told_with_all_of_them(tmp_path):
    error = paths.no_format(tmp_path, ("EVT2", "EVT3"))
    assert (error.message, error.allowed) == (
        f"'{tmp_path}' is in no format that is known here",
        "EVT2; EVT3",
    )
