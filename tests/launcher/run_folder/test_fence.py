"""A fenced-off generation changes nothing, wherever it was when it was fenced off."""

import json
import os
import shutil
from contextlib import contextmanager
from functools import partial

import pytest

from engines.world import open_world
from launcher.run_folder import fence, generations
from launcher.run_folder.fence import FencedOff
from slurm.environment import Generation
from tests.launcher.run_folder.paused import content, paused
from tests.training.checkpoint.killed import killed_at
from tests.training.checkpoint.states import state, whole
from training.checkpoint import retention
from training.checkpoint.manifest import CheckpointError, Score
from training.checkpoint.reader import open_checkpoint
from training.checkpoint.retention import Keep
from training.checkpoint.writer import CheckpointWriter
from training.logging import events, metrics
from training.storage import LineFile, Storage, StorageError

FIRST, SECOND, THIRD = (Generation("12", number) for number in range(3))


@pytest.fixture(scope="module")
def alone():
    world = open_world("cpu", timeout_s=60, always_group=False)
    yield world
    world.close()


def save(storage, world, step, samples=0):
    """A checkpoint of `step` in the foreground; the newest three and the best are kept."""
    saver = CheckpointWriter(storage, world, "local", Keep(3, 1, None), in_background=False)
    saver.visibility_timeout_s = 0.05  # a fenced-off generation waits for a folder that is gone
    facts = {"samples": samples or step}
    saver.save(step, state(whole(step)), facts, True, Score("loss", 1 / step, "min"))
    saver.wait()


def generation_run(run, world, generation):
    """All operations of a generation on a run folder, from its claim to its result."""
    with (
        fence.fenced_storage(run, generation) as storage,
        fence.fencing_errors(storage, generation),
    ):
        begin = min(steps(run), default=0)  # not the newest checkpoint: that one is set aside
        metrics.truncate(storage, begin, None)
        retention.set_aside(storage, begin)
        events.append_event(storage, "requeued", begin, {})
        lines = LineFile(run / "metrics.jsonl", storage.fence)
        for step in range(begin + 1, begin + 4):
            lines.write(b'{"kind": "train", "step": %d}' % step)
            save(storage, world, step)
        save(storage, world, begin + 3, samples=100)  # of an existing step
        storage.atomic_write("result.json", str(generation).encode())


def steps(run):
    """The steps with a checkpoint."""
    found = (run / "checkpoints").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


@pytest.fixture(scope="module")
def begun(alone, tmp_path_factory):
    """A run left by its first generation."""
    run = tmp_path_factory.mktemp("begun")
    generation_run(run, alone, FIRST)
    return run


MOMENTS = [
    pytest.param(range(1, 1000, 53), id="some"),
    pytest.param(range(1, 1000, 4), id="many", marks=pytest.mark.slow),
]


@contextmanager
def killed(operation, action):
    """Like `paused`, for a process that is killed there."""
    yield killed_at(operation, action)


@pytest.mark.parametrize("moments", MOMENTS)
@pytest.mark.parametrize("interrupted", [paused, killed])
def test_a_generation_interrupted_at_any_moment_changes_nothing_after_a_later_claim(
    tmp_path, alone, begun, interrupted, moments
):
    for operation in moments:
        run = tmp_path / str(operation)
        shutil.copytree(begun, run, symlinks=True)
        with interrupted(operation, partial(generation_run, run, alone, SECOND)) as was_interrupted:
            if not was_interrupted:
                break
            generation_run(run, alone, THIRD)  # resumes from what is left
            left = content(run)
        late = {f"slurm/{generations.NAME}"}  # a late claim is recorded, and refused
        after = content(run)
        assert [name for name in left | after if left.get(name) != after.get(name)] in ([], [*late])
        check(run, THIRD)
    assert operation > 60


def check(run, last):
    """The folder is that of `last`, without duplicate lines or hidden files."""
    newest = open_checkpoint(run / "last").manifest
    assert (newest.step, newest.samples) == (steps(run)[-1], 100)
    logged = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == list(range(1, newest.step + 1))
    assert (run / "result.json").read_text() == str(last)
    assert list(run.glob(".*")) == []


def test_a_save_that_runs_when_the_fence_closes_leaves_nothing(tmp_path, alone):
    with fence.fenced_storage(tmp_path, FIRST) as storage:
        saver = CheckpointWriter(storage, alone, "local", Keep(1, 1, None), in_background=True)
        saver.save(1, state(whole(1)), {"samples": 1}, True, None)
        generation_run(tmp_path, alone, SECOND)
        left = content(tmp_path)
        with pytest.raises(CheckpointError):
            saver.save(2, state(whole(2)), {"samples": 2}, True, None)
            saver.wait()
    assert content(tmp_path) == left


def test_a_write_after_a_later_claim_raises_fenced_off(tmp_path, alone):
    with (
        pytest.raises(FencedOff) as end,
        fence.fenced_storage(tmp_path, FIRST) as storage,
        fence.fencing_errors(storage, FIRST),
    ):
        generation_run(tmp_path, alone, SECOND)
        save(storage, alone, 9)
    assert str(end.value) == (
        f"generation 0 of Slurm job 12 is fenced off: generation 1 has claimed {tmp_path}"
    )


def test_an_error_without_a_closed_fence_stays_what_it_is(tmp_path):
    with (
        pytest.raises(ValueError, match="our own"),
        fence.fenced_storage(tmp_path, FIRST) as storage,
        fence.fencing_errors(storage, FIRST),
    ):
        raise ValueError("our own")


def test_an_open_line_file_is_unlinked_after_a_later_claim(tmp_path):
    with fence.fenced_storage(tmp_path, FIRST) as storage:
        stale = LineFile(tmp_path / "metrics.jsonl", storage.fence)
        stale.write(b"{}")
        os.write(stale._file, b'{"half')  # it was writing when it was paused
        with fence.fenced_storage(tmp_path, SECOND):
            with pytest.raises(StorageError):
                stale.write(b"late")
            with pytest.raises(StorageError):
                LineFile(tmp_path / "events.jsonl", storage.fence)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"{}\n"
    assert not (tmp_path / "events.jsonl").exists()


def test_a_late_start_of_an_earlier_generation_is_refused(tmp_path):
    with fence.fenced_storage(tmp_path, SECOND):
        with pytest.raises(FencedOff), fence.fenced_storage(tmp_path, FIRST):
            pass
        assert [path.name[:11] for path in tmp_path.glob(".*")] == [".fence-12.1"]


def test_a_checkpoint_being_replaced_when_the_fence_closes_is_recovered(tmp_path, alone):
    generation_run(tmp_path, alone, FIRST)
    leftover = tmp_path / f"{fence.FENCE}{FIRST}-dead"
    leftover.mkdir()
    newest = tmp_path / "checkpoints" / "step-00000003"
    newest.rename(leftover / ".replaced-step-00000003")
    with fence.fenced_storage(tmp_path, SECOND):
        assert open_checkpoint(newest).manifest.step == 3
        assert not leftover.exists()


def test_a_generation_delayed_before_it_closes_fences_leaves_a_later_one_open(tmp_path):
    generations.claim(tmp_path, FIRST)
    earlier = tmp_path / f"{fence.FENCE}{Generation('11', 4)}-dead"
    earlier.mkdir()
    own = tmp_path / f"{fence.FENCE}{FIRST}-own"
    own.mkdir()
    with fence.fenced_storage(tmp_path, SECOND) as later_storage:
        assert not own.exists() and not earlier.exists()
        earlier.mkdir()
        fence._close_earlier_fences(Storage(tmp_path, own), FIRST)
        assert later_storage.fence.is_dir() and not earlier.exists()


def test_no_checkpoint_is_set_aside_without_the_fence(tmp_path, alone):
    generation_run(tmp_path, alone, FIRST)
    for link in ("last", "best"):  # these would be the first to fail
        (tmp_path / link).unlink()
    left = content(tmp_path)
    with pytest.raises(FileNotFoundError):
        retention.set_aside(Storage(tmp_path, tmp_path / f"{fence.FENCE}{SECOND}-gone"), 0)
    assert content(tmp_path) == left
