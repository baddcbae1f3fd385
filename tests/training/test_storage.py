"""Files are replaced whole and under a fence, lines are whole or not there, and a folder that cannot be written is a clear error."""

import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from training.storage import LineFile, Storage, StorageError


@pytest.fixture
def files_of_ten_bytes():
    """Inside, a file may have so many, as on a disk that is full."""

    @contextmanager
    def limited():
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


def test_a_line_is_on_disk_when_write_returns_whole_or_not_at_all(tmp_path, files_of_ten_bytes):
    file = LineFile(tmp_path / "a.jsonl")
    file.write(b"whole")
    assert (tmp_path / "a.jsonl").read_bytes() == b"whole\n"
    message = r"cannot write .*a\.jsonl: File too large"
    with files_of_ten_bytes(), pytest.raises(StorageError, match=message):
        file.write(b"too long for what is left")
    assert (tmp_path / "a.jsonl").read_bytes() == b"whole\n"
    file.write(b"again")
    assert (tmp_path / "a.jsonl").read_bytes() == b"whole\nagain\n"
    file.close()


def test_a_folder_deleted_under_the_run_is_noticed(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    file = LineFile(run / "a.jsonl")
    file.write(b"one")
    shutil.rmtree(run)
    with pytest.raises(StorageError, match=r"a\.jsonl: it was deleted during the run"):
        file.write(b"two")
    file.close()


def test_a_full_disk_error_names_the_fix():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    file = LineFile(full)
    message = r"No space left on device; free some space, or .* --out"
    with pytest.raises(StorageError, match=message):
        file.write(b"one")


def test_an_atomic_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path, files_of_ten_bytes
):
    (tmp_path / "a").write_bytes(b"old")
    with files_of_ten_bytes(), pytest.raises(OSError, match="File too large"):
        Storage(tmp_path).atomic_write("a", b"more than ten bytes")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_without_its_fence_a_storage_writes_nothing(tmp_path):
    fence = tmp_path / ".fence"
    fence.mkdir()
    storage = Storage(tmp_path, fence)
    storage.atomic_write("a", b"old")
    storage.append_line("lines", b"one")
    storage.atomic_link("link", "a")
    fence.rename(tmp_path / ".closed")

    with pytest.raises(FileNotFoundError):
        storage.atomic_write("a", b"new")
    with pytest.raises(StorageError):
        storage.append_line("lines", b"two")
    with pytest.raises(FileNotFoundError):
        storage.atomic_link("link", "lines")
    with pytest.raises(FileNotFoundError):
        storage.remove_file("a")

    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "lines").read_bytes() == b"one\n"
    assert (tmp_path / "link").readlink() == Path("a")
