"""What has its final name is on the device: files are synced before they are renamed."""

import os

import pytest

from gearshift.training.storage import atomic_write
from tests.training.checkpoint.states import saving, state, whole


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


def test_every_file_of_a_checkpoint_and_its_folder_are_synced_before_it_is_published(
    tmp_path, alone, synced
):
    final = tmp_path / "checkpoints" / "step-00000020"
    inodes = synced(final)
    saving(tmp_path, alone).save(20, state(whole()), {"samples": 640}, periodic=True, score=None)
    paths = [final, *final.iterdir()]
    assert len(paths) > 4
    assert [path.name for path in paths if path.stat().st_ino not in inodes] == []


@pytest.mark.parametrize("replaces", [False, True])
def test_a_name_is_synced_before_the_link_to_it_and_the_link_after_it(
    tmp_path, alone, monkeypatch, replaces
):
    def save():
        saving(tmp_path, alone).save(
            20, state(whole()), {"samples": 640}, periodic=True, score=None
        )

    if replaces:
        save()
    folder, link, real, synced = tmp_path / "checkpoints", tmp_path / "last", os.fsync, []
    time_before = link.lstat().st_mtime_ns if replaces else None

    def fsync(file):
        real(file)
        time = link.lstat().st_mtime_ns if link.is_symlink() else None
        names = {entry.name for entry in folder.iterdir()}
        synced.append((os.fstat(file).st_ino, names, time != time_before))

    monkeypatch.setattr(os, "fsync", fsync)
    save()
    inode = folder.stat().st_ino
    older = {".replaced-step-00000020"} if replaces else set()
    assert (inode, {"step-00000020", *older}, False) in synced
    if replaces:  # the older one has been set aside, and the newer one has no name yet
        assert (inode, {".saving-step-00000020", *older}, False) in synced
    assert any(is_new for inode, _, is_new in synced if inode == tmp_path.stat().st_ino)
