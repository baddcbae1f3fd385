"""What a command may write to is checked before it starts, and nothing is made."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from gearshift.launcher.base import disk
from tests.launcher.given import resolved
from tests.launcher.runs import trained


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a run, and the settings of a download."""
    monkeypatch.chdir(tmp_path)
    trained(tmp_path / "run", resolved(), 10)
    text = "download: {files: ['file:///etc/hostname'], fetch: true}\n"
    (tmp_path / "settings.yaml").write_text(text)
    return tmp_path


def make_unwritable(monkeypatch, folder):
    """Let the system refuse to write to `folder` and all that is in it."""

    def access(path, mode, access=os.access):
        is_inside = folder in (Path(path).absolute(), *Path(path).absolute().parents)
        return access(path, mode) and not (is_inside and mode & os.W_OK)

    monkeypatch.setattr(os, "access", access)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


COMMANDS = {
    "run": ["--model", "language:tiny"],
    "run into a folder": ["--model", "language:tiny", "--out", "mine/new"],
    "resume": ["resume", "run", "--max-steps", "90", "--reset", "schedule"],
    "compare": ["compare", "--model", "language:tiny", "--modes", "fast", "--steps", "1"],
    "track": ["track", "run"],
    "new-task": ["new-task", "my_images"],
    "new-task in a folder": ["new-task", "my_images", "--out", "a/b"],
    "export": ["export", "run", "--format", "safetensors"],
    "data check": ["data", "check", "embedded:python"],
    "data fetch": ["data", "fetch", "--config", "settings.yaml"],
}


def test_an_unwritable_folder_is_an_error_before_anything_starts(here, said, monkeypatch):
    before = names(here)
    make_unwritable(monkeypatch, here)
    for command in COMMANDS.values():
        err = said(*command, code=2)
        assert "is not writable" in err and "Traceback" not in err, command
        assert names(here) == before, command


def test_too_little_room_is_named_with_what_is_needed(here, said, monkeypatch):
    before = names(here)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=-1))
    for command in ("compare", "export", "new-task in a folder"):
        assert "and its disk has -1 B free" in said(*COMMANDS[command], code=2)
        assert names(here) == before


def test_new_parents_are_removed_if_the_block_fails(tmp_path):
    with pytest.raises(OSError, match="full"), disk.new_parents(tmp_path / "a" / "b" / "c"):
        assert (tmp_path / "a" / "b").is_dir()
        raise OSError("full")
    assert names(tmp_path) == []
