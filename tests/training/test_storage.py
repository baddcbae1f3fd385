"""Files are replaced whole, lines are whole or not there, and a folder that cannot be written is a clear error."""

import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from gearshift.training.storage import (
    LineFile,
    Storage,
    StorageError,
    atomic_write,
    lines_of,
    open_to_read,
    parse_json,
    read_json,
)


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


def test_only_regular_files_are_opened_and_no_link_is_followed(tmp_path):
    storage, victim, name = Storage(tmp_path), tmp_path / "victim", tmp_path / "a"
    for make in (lambda: name.symlink_to(victim), lambda: os.mkfifo(name), name.mkdir):
        make()
        with pytest.raises(StorageError, match=r"cannot write .*a: .*(link|device|directory)"):
            storage.append_line("a", b"one")
        with pytest.raises((OSError, ValueError)):
            read_json(name)
        name.rmdir() if name.is_dir() else name.unlink()
    assert not victim.exists()


@pytest.mark.parametrize("leftover", [Path.touch, lambda path: path.symlink_to("victim")])
def test_a_temporary_file_that_a_kill_left_or_somebody_placed_is_replaced(tmp_path, leftover):
    leftover(tmp_path / ".a.new")
    atomic_write(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new" and not (tmp_path / "a").is_symlink()


def test_json_has_bounds(tmp_path):
    assert parse_json("[" * 64 + "]" * 64) and parse_json(b"[" + b"[{}]," * 99 + b"1]")
    for deep in ("[" * 65 + "]" * 65, '{"a":' * 65 + "1" + "}" * 65, "[" * 10**6):
        with pytest.raises(ValueError, match=r"levels|Expecting"):
            parse_json(deep)
    assert parse_json(f"[{2**127}]") == [2**127]
    with pytest.raises(ValueError, match="digits"):
        parse_json(f"[{10**40}]")
    with (tmp_path / "a").open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(ValueError, match="more than"):
        read_json(tmp_path / "a")
    with open_to_read(tmp_path / "a") as file:
        assert list(lines_of(file)) == []


def test_an_atomic_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path, files_of_ten_bytes
):
    (tmp_path / "a").write_bytes(b"old")
    with files_of_ten_bytes(), pytest.raises(OSError, match="File too large"):
        Storage(tmp_path).atomic_write("a", b"more than ten bytes")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_storage_that_another_owns_replaces_nothing(tmp_path):
    def check():
        raise OSError("another owns it")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="another owns it"):
        Storage(tmp_path, check).atomic_write("a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]
