"""What has its final name is on the device: files are synced before they are renamed."""

import os

import pytest

from tests.training.checkpoint.states import saving, state, whole
from training.storage import atomic_write


@pytest.fixture
def synced(monkeypatch):
    """Calls give the inodes that were synced while the path `final` did not exist."""
    real = os.fsync

    def record(final):
        inodes: set[int] = set()

        def fsync(file):
            real(file)
            if not final.exists():
                inodes.add(os.fstat(file).st_ino)

        monkeypatch.setattr(os, "fsync", fsync)
        return inodes

    return record


def test_a_file_is_synced_before_it_is_renamed(tmp_path, synced):
    inodes = synced(tmp_path / "a")
    atomic_write(tmp_path / "a", b"content")
    assert inodes == {(tmp_path / "a").stat().st_ino}


def test_every_file_of_a_checkpoint_and_its_folder_are_synced_before_it_is_published(tmp_path, alone, synced):
    final = tmp_path / "checkpoints" / "step-00000020"
    inodes = synced(final)
    saving(tmp_path, alone).save(20, state(whole()), {"samples": 640}, periodic=True, score=None)
    paths = [final, *final.iterdir()]
    assert len(paths) > 4
    assert [path.name for path in paths if path.stat().st_ino not in inodes] == []
