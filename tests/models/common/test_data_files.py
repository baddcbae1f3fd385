from __future__ import annotations

import pytest

from models.base import DataError
from models.common import data_files
from models.common.data_files import BadRecords


def test_a_path_that_is_not_there_is_told_with_what_may_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        data_files.existing_path("nowhere", "a folder of recordings")
    assert str(error.value) == (
        "data.path 'nowhere' does not exist\n"
        f"  where         looked for {tmp_path / 'nowhere'}\n"
        "  allowed       a folder of recordings"
    )


def test_the_home_folder_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").touch()
    assert data_files.existing_path("~/here", "") == tmp_path / "here"


def test_files_of_a_folder_come_by_name_without_hidden_ones(tmp_path):
    for name in ("b/2", "a/1", ".hidden/x", "a/.x", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in data_files.files(tmp_path)]
    assert found == ["a/1", "b/2", "c"]
    assert data_files.files(tmp_path / "c") == [tmp_path / "c"]


def test_a_file_that_the_system_does_not_open_is_told_with_its_reason(tmp_path):
    try:
        (tmp_path / "gone").read_bytes()
    except OSError as error:
        told = data_files.unreadable_file(tmp_path, error)
    assert told.message == f"'{tmp_path / 'gone'}' cannot be read: No such file or directory"


def test_an_embedded_name_that_there_is_not_has_a_nearest():
    error = data_files.unknown_embedded(
        "embedded:comands", ["embedded:python", "embedded:commands"]
    )
    assert error.did_you_mean == "embedded:commands"
    assert error.fix == "--data embedded:commands"


def test_data_in_no_known_format_is_told_with_all_of_them(tmp_path):
    error = data_files.unknown_format(tmp_path, ("EVT2", "EVT3"))
    assert (error.message, error.allowed) == (
        f"'{tmp_path}' is in no format that is known here",
        "EVT2; EVT3",
    )


def found(count: int) -> BadRecords:
    bad_records = BadRecords("pages")
    for number in range(1, count + 1):
        bad_records.add(f"page {number}", "no image")
    return bad_records


def test_faults_are_told_together_with_their_number_and_the_mend():
    with pytest.raises(DataError) as error:
        found(5).finish("stop", read=7)
    assert str(error.value) == (
        "5 of 12 pages cannot be used\n"
        "  where         page 1: no image\n"
        "           page 2: no image\n"
        "           page 3: no image\n"
        "           and 2 more\n"
        "  fix           repair them, or leave them out with  --set data.on_bad=skip"
    )


def test_faults_that_may_be_skipped_are_counted_and_the_first_ones_told():
    bad_records = found(5)
    assert bad_records.finish("skip", read=7) == 5
    assert bad_records.examples() == ["page 1: no image", "page 2: no image", "page 3: no image"]


def test_where_nothing_is_wrong_nothing_is_said():
    assert found(0).finish("stop", read=7) == 0


def test_only_the_first_faults_are_held_and_all_are_counted():
    bad_records = found(100_000)
    assert (bad_records.count, len(bad_records.rows)) == (100_000, 3)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_what_was_found_since_can_be_forgotten(count):
    bad_records = found(count)
    told = bad_records.examples()
    bad_records.add("page x", "no image")
    bad_records.truncate(count)
    assert bad_records.finish("skip", read=1) == count
    assert bad_records.examples() == told
