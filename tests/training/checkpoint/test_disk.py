"""A disk that is full, unwritable or removed fails the save and keeps earlier checkpoints."""

import os
import shutil

import pytest

from gearshift.training.checkpoint.manifest import CheckpointError, Score
from gearshift.training.checkpoint.reader import open_checkpoint
from tests.training.checkpoint.states import saving, state, whole

BACKGROUND = pytest.mark.parametrize("in_background", [True, False])


def save(saver, step):
    saver.save(step, state(whole(step)), {"samples": step}, True, Score("loss", 1 / step, "min"))
    saver.wait()


def has_only_step_1(run):
    """Only step 1 exists, complete and linked."""
    assert os.listdir(run / "checkpoints") == ["step-00000001"]
    assert open_checkpoint(run / "best").manifest.step == 1
    return open_checkpoint(run / "last").manifest.step == 1


@BACKGROUND
@pytest.mark.parametrize("room", (0, 1, 3, 5))
def test_a_disk_that_fills_up_during_a_save_loses_no_earlier_one(disk, alone, in_background, room):
    run = disk("size=64m")
    saver = saving(run, alone, in_background)
    save(saver, 1)
    used = os.statvfs(run).f_files - os.statvfs(run).f_ffree
    # Bytes are free, but the number of files is limited: the error is that of a full disk.
    disk(f"remount,nr_inodes={used + room}")
    try:
        save(saver, 2)
    except CheckpointError as error:
        message = str(error)
    else:
        pytest.fail("it was written whole")
    assert message.startswith("the checkpoint of step 2 cannot be saved: ")
    assert str(run) in message and "No space left on device" in message
    assert has_only_step_1(run)


@BACKGROUND
def test_a_disk_that_cannot_be_written_is_named(disk, alone, in_background):
    run = disk("size=64m")
    saver = saving(run, alone, in_background)
    save(saver, 1)
    disk("remount,ro")
    with pytest.raises(CheckpointError) as raised:
        save(saver, 2)
    raised.match(rf"cannot write {run}/checkpoints/.*: Read-only file system; make it writable")
    assert has_only_step_1(run)


@BACKGROUND
def test_a_run_folder_that_is_gone_is_named(tmp_path, alone, in_background):
    run = tmp_path / "run"
    run.mkdir()
    saver = saving(run, alone, in_background)
    save(saver, 1)
    shutil.rmtree(run)
    with pytest.raises(CheckpointError, match=f"{run}"):
        save(saver, 2)
    assert not run.exists()
