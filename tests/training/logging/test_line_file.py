"""Lines are whole or not there, and a folder that cannot be written is a clear error."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest

from training.logging.line_file import LineFile, RunFolderError


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path):
    file = LineFile(tmp_path / "a.jsonl")
    file.write(b"one")
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\n"
    file.write(b"two")
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\ntwo\n"
    file.close()


def test_a_file_that_is_there_is_gone_on_with(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    file = LineFile(tmp_path / "a.jsonl")
    file.write(b"two")
    assert (tmp_path / "a.jsonl").read_bytes() == b"one\ntwo\n"
    file.close()


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_whole_lines(tmp_path: Path):
    file = LineFile(tmp_path / "a.jsonl")
    file.write(b"whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(RunFolderError, match=r"cannot write .*a\.jsonl: File too large"):
            file.write(b"too long for what is left")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert (tmp_path / "a.jsonl").read_bytes() == b"whole\n"
    file.write(b"again")
    assert (tmp_path / "a.jsonl").read_bytes() == b"whole\nagain\n"
    file.close()


def test_a_folder_deleted_under_the_run_is_noticed(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    file = LineFile(run / "a.jsonl")
    file.write(b"one")
    shutil.rmtree(run)

    with pytest.raises(RunFolderError, match=r"a\.jsonl: it was deleted during the run"):
        file.write(b"two")
    file.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"none/a\.jsonl: No such file or directory"):
        LineFile(tmp_path / "none" / "a.jsonl")


def test_a_full_disk_has_its_mend():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    file = LineFile(full)

    with pytest.raises(RunFolderError, match=r"No space left on device; free some, or .* --out"):
        file.write(b"one")
