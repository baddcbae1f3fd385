"""An earlier generation of a job saves nothing once a later one has claimed the run."""

import pytest

from gearshift.engines.world import open_world
from gearshift.launcher.run_folder import generations
from gearshift.launcher.run_folder.generations import FencedOff
from gearshift.slurm.environment import Generation
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.storage import StorageError
from tests.training.checkpoint.states import state, whole

FIRST, SECOND = (Generation("12", number) for number in range(2))


@pytest.fixture(scope="module")
def alone():
    world = open_world("cpu", timeout_s=60, always_group=False)
    yield world
    world.close()


def writer(storage, world, in_background=False):
    return CheckpointWriter(storage, world, "local", Keep(3, 1, None), in_background)


def names(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("in_background", [False, True])
def test_a_save_after_a_later_claim_leaves_nothing_and_names_the_later_one(
    tmp_path, alone, in_background
):
    generations.take_over(tmp_path, FIRST)
    with pytest.raises(FencedOff) as end, generations.fencing(tmp_path, FIRST) as storage:
        saver = writer(storage, alone, in_background)
        saver.save(1, state(whole(1)), {"samples": 1}, True, None)
        saver.wait()
        generations.take_over(tmp_path, SECOND)
        saver.save(2, state(whole(2)), {"samples": 2}, True, None)
        saver.wait()
    assert "generation 1 of Slurm job 12 has claimed" in str(end.value)
    assert names(tmp_path) == ["step-00000001"]
    assert open_checkpoint(tmp_path / "last").manifest.step == 1


def test_a_file_and_a_line_after_a_later_claim_are_not_written(tmp_path):
    generations.take_over(tmp_path, FIRST)
    with pytest.raises(FencedOff), generations.fencing(tmp_path, FIRST) as storage:
        lines = storage.open_lines("metrics.jsonl")
        lines.write(b"{}")
        (tmp_path / "metrics.jsonl").open("ab").write(b'{"half')  # it was writing when it hung
        generations.take_over(tmp_path, SECOND)
        with pytest.raises(StorageError):
            lines.write(b"late")
        storage.atomic_write("result.json", b"late")
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"{}\n"
    assert not (tmp_path / "result.json").exists()


def test_a_late_start_of_an_earlier_generation_is_refused(tmp_path):
    generations.take_over(tmp_path, SECOND)
    with pytest.raises(FencedOff):
        generations.take_over(tmp_path, FIRST)
    assert generations.claimed(tmp_path) == [SECOND]
