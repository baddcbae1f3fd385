import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from models.base import DataError
from models.common import data_files
from models.common.data_files import BadRecords, hdf5_problem
from tests.models.errors import error_of


def test_a_missing_path_is_an_error_that_names_what_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(error_of(data_files.existing_path, "nowhere", "a folder of recordings")) == (
        "data.path 'nowhere' does not exist\n"
        f"  where         looked for {tmp_path / 'nowhere'}\n"
        "  allowed       a folder of recordings"
    )


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


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "MAX_FILES", 2)
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="has more than 2 files"):
        data_files.files(tmp_path)


def test_folders_of_the_system_hold_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "_SYSTEM_FOLDERS", (tmp_path / "proc",))
    for name in ("proc/kmsg", "home/proc/a"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "home")
    for folder in (tmp_path, Path("..")):
        assert data_files.files(folder) == [folder / "home/proc/a"]
    assert data_files.files(Path("../proc")) == []


def test_the_first_files_are_found_without_walking_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "FILES_CHECKED", 2)
    for name in ("b/3", "b/4", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(data_files.first_files(tmp_path)) == [tmp_path / "a", tmp_path / "b/3"]
    assert list(data_files.first_files(tmp_path / "a")) == [tmp_path / "a"]


def test_an_unreadable_file_is_an_error_with_its_reason(tmp_path):
    try:
        (tmp_path / "gone").read_bytes()
    except OSError as error:
        unreadable = data_files.unreadable_file(tmp_path, error)
    assert unreadable.message == f"'{tmp_path / 'gone'}' cannot be read: No such file or directory"


def bad_pages(count):
    records = BadRecords("pages")
    for number in range(1, count + 1):
        records.add(f"page {number}", "no image")
    return records


def test_bad_records_stop_the_start_with_their_count_and_a_fix():
    with pytest.raises(DataError) as error:
        bad_pages(5).finish("stop", num_good=7)
    assert str(error.value) == (
        "5 of 12 pages cannot be used\n"
        "  where         page 1: no image\n"
        "                page 2: no image\n"
        "                page 3: no image\n"
        "                and 2 more\n"
        "  fix           correct page 1 and the others, or skip them with  --set data.on_bad=skip"
    )
    with pytest.raises(DataError) as error:
        bad_pages(1).finish("stop", num_good=0)  # skipping would leave nothing
    assert str(error.value).endswith("  fix           correct page 1")
    assert bad_pages(5).finish("skip", num_good=7) == 5
    assert bad_pages(5).examples() == ["page 1: no image", "page 2: no image", "page 3: no image"]


@pytest.mark.parametrize("count", [0, 2, 5])
def test_later_records_can_be_forgotten(count):
    records = bad_pages(count)
    before = records.examples()
    records.add("page x", "no image")
    records.truncate(count)
    assert records.finish("skip", num_good=1) == count
    assert records.examples() == before


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "some.h5", "w") as opened:
        yield opened


@pytest.mark.parametrize("options", [{}, {"chunks": (3, 2)}, {"compression": "gzip"}])
def test_a_complete_dataset_has_no_problem(file, options):
    assert hdf5_problem(file.create_dataset("a", data=np.ones((10, 4)), **options)) is None


def test_an_empty_or_a_scalar_dataset_has_no_problem(file):
    assert hdf5_problem(file.create_dataset("a", data=np.ones((0, 4)))) is None
    assert hdf5_problem(file.create_dataset("b", (0, 4), np.float32, maxshape=(None, 4))) is None
    assert hdf5_problem(file.create_dataset("c", data=1.5)) is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "claims 1,000,000,000,000 values, but the file stores 0"),
        (
            {"chunks": (1000,), "compression": "gzip"},
            "claims 1,000,000,000,000 values in 1,000,000,000 chunks, but the file stores 0",
        ),
        ({"chunks": (2**27,)}, "has chunks of 134,217,728 values, each read at once"),
    ],
)
def test_a_claim_of_a_terabyte_is_found(file, options, problem):
    assert hdf5_problem(file.create_dataset("a", (10**12,), np.float32, **options)) == problem


def test_a_dataset_that_unpacks_to_far_more_than_real_data_is_found(file):
    packed = {"chunks": (10**6,), "compression": "gzip"}
    found = file.create_dataset("a", data=np.zeros(8 * 10**7, np.uint8), **packed)
    assert "unpacks to 80,000,000" in hdf5_problem(found)
    assert hdf5_problem(file.create_dataset("b", data=np.zeros(10**7, np.uint8), **packed)) is None


def test_a_dataset_that_was_written_in_part_is_found(file):
    found = file.create_dataset("a", (100, 4), np.float32, chunks=(10, 4))
    found[:25] = 1
    assert hdf5_problem(found) == "claims 100 × 4 values in 10 chunks, but the file stores 3"
