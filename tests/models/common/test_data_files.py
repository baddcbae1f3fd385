import os

import pytest

from gearshift.models.base import DataError
from gearshift.models.common import data_files
from gearshift.models.common.data_reports import BadRecords
from tests.models.errors import error_of


def test_files_of_a_folder_come_by_name_without_hidden_ones(tmp_path):
    for name in ("b/2", "a/1", ".hidden/x", "a/.x", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in data_files.files(tmp_path)]
    assert found == ["a/1", "b/2", "c"]
    assert data_files.files(tmp_path / "c") == [tmp_path / "c"]


def test_a_pipe_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a regular file"):
        data_files.existing_path(str(tmp_path / "pipe"), "")


@pytest.mark.parametrize("folder", ["/", "/dev", "/usr/../proc"])
def test_folders_of_the_system_hold_no_data(folder):
    with pytest.raises(DataError, match="nor a folder of data"):
        data_files.existing_path(folder, "")


def test_the_first_files_are_found_without_walking_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "FILES_CHECKED", 2)
    for name in ("b/3", "b/4", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(data_files.first_files(tmp_path)) == [tmp_path / "a", tmp_path / "b/3"]
    assert list(data_files.first_files(tmp_path / "a")) == [tmp_path / "a"]


def bad_pages(count):
    records = BadRecords("pages")
    for number in range(1, count + 1):
        records.add(f"page {number}", "no image")
    return records


def test_bad_records_stop_the_start_with_their_count_and_a_fix():
    error = error_of(bad_pages(5).finish, "stop", num_good=7)
    assert error.message.startswith("5 of 12 pages ") and error.where.startswith(
        "page 1: no image\n"
    )
    assert "--set data.on_bad=skip" in error.fix
    # Skipping would leave nothing.
    assert "skip" not in error_of(bad_pages(1).finish, "stop", num_good=0).fix
    assert bad_pages(5).finish("skip", num_good=7) == 5 and len(bad_pages(5).examples()) == 3


def test_copies_are_files_of_equal_content_only(tmp_path):
    middle, length = 1 << 17, 1 << 18
    whole = bytes(length)
    contents = {
        "a": whole,
        "b": whole[:middle] + b"x" + whole[middle + 1 :],  # of the same size and the same ends
        "c": whole,
        "d": whole + b"\0",
        "e": b"short",
        "f": b"short",
        "g": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = data_files.copies({name: tmp_path / name for name in contents})
    assert found == {"c": "a", "f": "e"}
