"""Checkpoints of one and of two ranks: complete or absent, and read back bit by bit."""

import errno
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from gearshift.engines.base import Piece, State
from gearshift.training.checkpoint.manifest import CheckpointError, Score
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.storage import Storage
from tests.training.checkpoint.killed import killed_at
from tests.training.checkpoint.states import BUFFERS, bits, saving, state, whole
from tests.waiting import until

FACTS = {"samples": 640, "best": {"metric": "loss", "value": float("nan")}, "seed": 7}
BEST = Score("loss", 0.5, "min")
_LARGE = 16 * 2**20


def save(world, run, replicated, in_background):
    """The folder of step 20, and the threads that collectives were called from."""
    threads = set()

    class RecordingWorld:
        def __getattr__(self, name):
            threads.add(threading.current_thread().name)
            return getattr(world, name)

    saver = saving(run, RecordingWorld(), in_background)
    mine = state(whole(), world.rank, world.size, replicated)
    saver.save(20, mine, FACTS, True, BEST)
    return saver.wait(), threads


def save_and_change(world, run):
    """The state and the facts saved with it change as soon as `save` returns."""
    kinds, steps, facts = whole(), {"embed.weight": 3.0}, {"samples": 1, "inner": {"n": 1}}
    group = {"names": ["embed.weight"], "lr": torch.tensor(0.5)}
    mine = state(kinds, world.rank, world.size)
    mine = replace(
        mine,
        shapes={**mine.shapes, "large": (_LARGE,)},
        # Is written first and takes a while, in which the others are changed.
        pieces=[
            replace(mine.pieces[0], name="large", start=0, data=torch.ones(_LARGE)),
            *mine.pieces,
        ],
        buffers={name: buffer.clone() for name, buffer in BUFFERS.items()},
        steps=steps,
        groups=[group],
    )
    saver = saving(run, world, in_background=True)
    saver.save(1, mine, facts, True, None)
    for tensor in (*(t for tensors in kinds.values() for t in tensors.values()), group["lr"]):
        tensor.zero_()
    for buffer in mine.buffers.values():
        buffer.zero_()
    steps["embed.weight"], facts["inner"]["n"], group["names"] = 4.0, 2, []
    saver.wait()


@contextmanager
def small_files(world):
    """Rank 1 cannot write more than 100 bytes to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def error_of(saver, step, saved, score=None):
    """The error of a save or of the wait for it."""
    try:
        saver.save(step, saved, FACTS, True, score)
        saver.wait()
    except CheckpointError as error:
        return str(error)
    return "saved"


def save_with_small_files_on_rank_one(world, run, in_background):
    saver = saving(run, world, in_background)
    saver.save(1, state(whole(), world.rank, world.size), FACTS, True, BEST)
    saver.wait()
    with small_files(world):
        return error_of(saver, 2, state(whole(1), world.rank, world.size), BEST)


def save_on_separate_disks(world, runs):
    saver = saving(runs[world.rank], world, in_background=True)
    saver.visibility_timeout_s = 0.2
    return error_of(saver, 1, state(whole(), world.rank, world.size))


def save_on_a_slow_disk(world, run, slow_check):
    """The folder of a save whose check number `slow_check` of the disk outlasts the time-out of collectives.

    Ranks look for each other once a second, so that they meet within the time-out.
    """
    impatient = copy(world)
    impatient._hosts = dist.new_group(backend="gloo", timeout=timedelta(seconds=2))
    clock = dist.new_group(backend="gloo", timeout=timedelta(seconds=2.5))
    has_timed_out = run / "a longer time-out has passed"
    checks = itertools.count()

    def wait_for_time_out():
        with suppress(RuntimeError):  # rank 0 never joins
            dist.all_reduce(torch.zeros(1), group=clock)
        has_timed_out.touch()

    def check():
        if next(checks) == slow_check:
            until(has_timed_out.exists)

    saver = CheckpointWriter(
        Storage(run, check), impatient, "zero2", Keep(1, 1, None), in_background=True
    )
    if world.rank == 1:
        threading.Thread(target=wait_for_time_out, daemon=True).start()
    saver.save(1, state(whole(), world.rank, world.size), FACTS, True, None)
    return saver.wait()


def save_to_a_disk_that_is_full_at_the_end(world, run):
    checks = itertools.count()

    def check():
        if next(checks) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saver = CheckpointWriter(
        Storage(run, check), world, "zero2", Keep(1, 1, None), in_background=True
    )
    return error_of(saver, 1, state(whole(), world.rank, world.size))


@pytest.mark.parametrize("slow_check", [0, 1])
def test_ranks_wait_longer_for_the_disk_of_another_than_for_a_collective(
    tmp_path, two_ranks, slow_check
):
    """Before the write, and for the commit."""
    folders = two_ranks.run(save_on_a_slow_disk, tmp_path, slow_check)
    two_ranks.close()  # with the groups that timed out
    assert folders == [tmp_path / "checkpoints" / "step-00000001"] * 2
    assert open_checkpoint(folders[0]).manifest.world_size == 2


def test_a_commit_that_fails_is_the_error_of_every_rank(tmp_path, two_ranks):
    first, second = two_ranks.run(save_to_a_disk_that_is_full_at_the_end, tmp_path)
    assert first == second
    assert first.startswith("the checkpoint of step 1 cannot be saved: rank 0: ")
    assert os.strerror(errno.ENOSPC) in first
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.parametrize(("replicated", "in_background"), [(True, True), (False, False)])
def test_two_ranks_write_what_one_reader_reads_back_bit_by_bit(
    tmp_path, two_ranks, replicated, in_background
):
    gave = two_ranks.run(save, tmp_path, replicated, in_background)

    assert gave == [(tmp_path / "checkpoints" / "step-00000020", {"MainThread"})] * 2
    found = open_checkpoint(tmp_path / "last")
    kinds = whole()
    assert found.kinds == sorted(kinds)
    for kind, tensors in kinds.items():
        assert found.names(kind) == [*tensors]
        for name, tensor in tensors.items():
            read = found.tensor(kind, name)
            assert read.shape == tensor.shape and bits(read) == bits(tensor), (kind, name)
    for name, buffer in BUFFERS.items():
        read = found.tensor("buffer", name)
        assert (read.shape, read.dtype, bits(read)) == (buffer.shape, buffer.dtype, bits(buffer))
    assert found.steps == dict.fromkeys(kinds["exp_avg"], 3.0)


def test_a_background_save_has_the_state_of_its_step(tmp_path, two_ranks):
    two_ranks.run(save_and_change, tmp_path)
    found = open_checkpoint(tmp_path / "last")
    for kind, tensors in whole().items():
        for name, tensor in tensors.items():
            assert bits(found.tensor(kind, name)) == bits(tensor), (kind, name)
    for name, buffer in BUFFERS.items():
        assert bits(found.tensor("buffer", name)) == bits(buffer)
    assert found.steps == {"embed.weight": 3.0}
    assert found.groups == [{"names": ["embed.weight"], "lr": 0.5}]
    assert found.facts["inner"] == {"n": 1}


@pytest.mark.parametrize("in_background", [True, False])
def test_a_rank_that_cannot_write_fails_on_all_ranks_and_keeps_the_earlier_checkpoint(
    tmp_path, two_ranks, in_background
):
    results = two_ranks.run(save_with_small_files_on_rank_one, tmp_path, in_background)
    assert results[0] == results[1]
    assert results[0].startswith("the checkpoint of step 2 cannot be saved: rank 1: cannot write ")
    assert results[0].endswith("rank-00001.safetensors: File too large")
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]
    assert open_checkpoint(tmp_path / "last").manifest.step == 1
    assert open_checkpoint(tmp_path / "best").manifest.step == 1


@pytest.mark.parametrize("looks_alike", [False, True])
def test_folders_that_nodes_do_not_share_are_noticed(tmp_path, two_ranks, looks_alike):
    runs = [tmp_path / "one", tmp_path / "other"]
    for run in runs:
        (run / "checkpoints").mkdir(parents=True)
    if looks_alike:
        (runs[1] / "checkpoints" / ".saving-step-00000001").mkdir()
    results = two_ranks.run(save_on_separate_disks, runs)
    who = "rank 0: " if looks_alike else "rank 1: "
    assert results[0] == results[1]
    assert results[0].startswith(f"the checkpoint of step 1 cannot be saved: {who}")
    assert results[0].endswith("within 0.2 s; all nodes must share the run folder")
    assert os.listdir(runs[0] / "checkpoints") == []


def test_a_checkpoint_larger_than_the_disk_is_refused_before_writing(tmp_path, alone):
    endless = torch.ones(1).expand(2**50)  # four petabytes, in four bytes of memory
    big = State({"w": (2**50,)}, [Piece("weight", "w", 0, endless)], {}, {}, [], {})
    with pytest.raises(CheckpointError, match=r"it needs 4096\.0 TiB, and .* free"):
        saving(tmp_path, alone, in_background=True).save(1, big, {"samples": 1}, True, None)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_kill_at_any_moment_of_a_save_leaves_whole_checkpoints_and_no_half_one(tmp_path, alone):
    """Of another step; test_retention.py has that of one saved twice."""
    before = tmp_path / "before"
    before.mkdir()
    saving(before, alone).save(1, state(whole()), FACTS, True, BEST)
    run = before

    def save_again():
        saver = saving(run, alone, last=1, in_background=True)
        saver.save(2, state(whole(1)), {"samples": 641}, True, Score("loss", 0.4, "min"))
        saver.wait()

    found = []
    for operation in itertools.count(1):
        run = tmp_path / f"killed-{operation}"
        shutil.copytree(before, run, symlinks=True)
        if not killed_at(operation, save_again):
            break
        saving(run, alone, in_background=True)
        names = sorted(os.listdir(run / "checkpoints"))
        assert names and all(name.startswith("step-") for name in names)
        found.append([open_checkpoint(run / "checkpoints" / n).manifest.samples for n in names])
        assert open_checkpoint(run / "last").manifest.samples in found[-1]
        assert open_checkpoint(run / "best").manifest.samples in found[-1]

    # The older one, then perhaps both, then the newer one.
    assert found[0] == [640] and found[-1] == [641] and found == sorted(found)
    assert len(found) >= 20


def test_the_manifest_is_checked_by_a_standard_tool_and_names_every_file(tmp_path, alone):
    save(alone, tmp_path, True, True)
    folder = tmp_path / "last"
    tool = ["sha256sum"] if sys.platform == "linux" else ["shasum", "-a", "256"]
    subprocess.run([*tool, "-c", "manifest.sha256"], cwd=folder, check=True, capture_output=True)
    listed = {file["name"] for file in json.loads((folder / "manifest.json").read_text())["files"]}
    assert listed | {"manifest.json", "manifest.sha256"} == set(os.listdir(folder))
