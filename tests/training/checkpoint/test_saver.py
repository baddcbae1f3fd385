"""Checkpoints of one and of two ranks: whole or absent, and read back bit by bit."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import pytest
import torch

from engines.base import Piece, State, World
from engines.world import ProcessWorld
from tests.engines.pool import Pool
from tests.training.checkpoint.states import BUFFERS, bits, state, whole
from training.checkpoint.manifest import CheckpointError
from training.checkpoint.reader import open_checkpoint
from training.checkpoint.saver import Saver

FACTS = {"samples": 640, "best": {"metric": "loss", "value": float("nan")}, "seed": 7}
_BIG = 48 * 2**20


def save(world: World, run: Path, step: int, replicated: bool) -> None:
    saver = Saver(run, world, "zero2", keep_last=2)
    saver.save(step, state(whole(), world.rank, world.size, replicated), FACTS, True, True)


def save_with_small_files_on_rank_one(world: World, run: Path) -> str:
    saver = Saver(run, world, "zero2", keep_last=2)
    saver.save(1, state(whole(), world.rank, world.size), FACTS, True, True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        saver.save(2, state(whole(1), world.rank, world.size), FACTS, True, True)
    except CheckpointError as fault:
        return str(fault)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "saved"


def save_what_only_rank_zero_cannot(world: World, run: Path) -> str:
    mine = state(whole(), world.rank, world.size)
    bad = State(**{**vars(mine), "buffers": {"phase": torch.tensor([1j])}})
    try:
        Saver(run, world, "zero2", keep_last=2).save(1, bad, FACTS, True, True)
    except CheckpointError as fault:
        return str(fault)
    return "saved"


def memory_that_saving_takes(world: World, run: Path, dtype: torch.dtype) -> int:
    tensor = torch.ones(_BIG, dtype=dtype)
    big = State({"w": (_BIG,)}, [Piece("weight", "w", 0, tensor, True)], {}, {}, [], {})
    # Makes the kernel forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_bytes()
    Saver(run, world, "ddp", keep_last=1).save(1, big, {"samples": 1}, False, False)
    return _peak_bytes() - before


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("replicated", [True, False])
def test_two_ranks_write_what_one_reader_reads_back_bit_by_bit(
    tmp_path: Path, two_ranks: Pool, replicated: bool
):
    two_ranks.run(save, tmp_path, 20, replicated)

    found = open_checkpoint(tmp_path / "last")
    kinds = whole()
    assert found.kinds == sorted(kinds)
    for kind, tensors in kinds.items():
        assert found.names(kind) == sorted(tensors)
        for name, tensor in tensors.items():
            read = found.tensor(kind, name)
            assert read.shape == tensor.shape and bits(read) == bits(tensor), (kind, name)
    for name, buffer in BUFFERS.items():
        read = found.buffer(name)
        assert (read.shape, read.dtype, bits(read)) == (buffer.shape, buffer.dtype, bits(buffer))
    assert found.steps == dict.fromkeys(kinds["exp_avg"], 3.0)


def test_replicas_share_the_writing(tmp_path: Path, two_ranks: Pool):
    two_ranks.run(save, tmp_path, 20, True)

    sizes = [file.stat().st_size for file in sorted((tmp_path / "last").glob("rank-*"))]
    elements = sum(t.numel() for tensors in whole().values() for t in tensors.values())
    assert len(sizes) == 2
    assert sum(sizes) < 2 * 4 * elements + 4000  # with two headers, far below two whole copies
    assert max(sizes) - min(sizes) < 600


def test_what_is_no_tensor_is_json_beside_them(tmp_path: Path, alone: ProcessWorld):
    save(alone, tmp_path, 20, True)

    found = open_checkpoint(tmp_path / "last")
    assert found.groups[0]["betas"] == [0.9, 0.95]
    assert found.groups[1]["lr"] == pytest.approx(1e-3, rel=1e-6)
    assert found.loss_scale == {"scale": 65536.0, "growth_tracker": 7}
    assert found.facts == {**FACTS, "best": {"metric": "loss", "value": "NaN"}}
    assert (found.manifest.step, found.manifest.samples) == (20, 640)
    assert (found.manifest.engine, found.manifest.world_size) == ("zero2", 1)
    assert found.manifest.libraries["torch"] == torch.__version__


def test_a_rank_that_cannot_write_fails_all_and_leaves_the_earlier_one(
    tmp_path: Path, two_ranks: Pool
):
    told = two_ranks.run(save_with_small_files_on_rank_one, tmp_path)

    assert "another rank could not write its part" in told[0]
    assert told[1].startswith("the checkpoint of step 2 cannot be saved: cannot write ")
    assert told[1].endswith("rank-00001.safetensors: File too large")
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]
    assert open_checkpoint(tmp_path / "last").manifest.step == 1
    assert open_checkpoint(tmp_path / "best").manifest.step == 1


def test_a_tensor_that_only_one_rank_cannot_save_hangs_nobody(tmp_path: Path, two_ranks: Pool):
    told = two_ranks.run(save_what_only_rank_zero_cannot, tmp_path)

    assert "phase: torch.complex64 cannot be saved" in told[0]
    assert "another rank" in told[1]
    assert not (tmp_path / "checkpoints").exists()


def test_more_than_the_disk_holds_is_refused_before_it_is_written(
    tmp_path: Path, alone: ProcessWorld
):
    endless = torch.ones(1).expand(2**50)  # four petabytes, in four bytes of memory
    big = State({"w": (2**50,)}, [Piece("weight", "w", 0, endless, True)], {}, {}, [], {})

    with pytest.raises(CheckpointError, match=r"it needs 4096\.0 TiB, and .* free"):
        Saver(tmp_path, alone, "local", 1).save(1, big, {"samples": 1}, True, True)
    assert os.listdir(tmp_path / "checkpoints") == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_takes_no_second_copy_of_a_replica(
    tmp_path: Path, two_ranks: Pool, dtype: torch.dtype
):
    taken = two_ranks.run(memory_that_saving_takes, tmp_path, dtype)

    # Six blocks of 16 MiB and what the allocator rounds up; as fp32 the tensor has 192 MiB.
    assert max(taken) < 128 * 2**20


def test_a_step_saved_twice_is_written_once_and_may_become_the_best(
    tmp_path: Path, alone: ProcessWorld
):
    saver = Saver(tmp_path, alone, "local", keep_last=2)
    first = saver.save(3, state(whole()), FACTS, is_best=False, periodic=False)
    written = (first / "manifest.json").stat()
    assert not (tmp_path / "best").exists()

    saver.save(3, state(whole()), FACTS, is_best=True, periodic=False)
    assert (first / "manifest.json").stat() == written
    assert (tmp_path / "best").resolve() == first.resolve()


def test_a_step_saved_with_other_facts_is_written_anew(tmp_path: Path, alone: ProcessWorld):
    saver = Saver(tmp_path, alone, "local", keep_last=2)
    saver.save(3, state(whole()), FACTS, is_best=True, periodic=False)
    saver.save(3, state(whole(1)), {**FACTS, "seed": 8}, is_best=False, periodic=False)

    found = open_checkpoint(tmp_path / "best")
    assert found.facts["seed"] == 8
    assert bits(found.tensor("weight", "frozen")) == bits(whole(1)["weight"]["frozen"])


def test_what_a_killed_process_left_half_made_is_swept_away(tmp_path: Path, alone: ProcessWorld):
    save(alone, tmp_path, 20, True)
    half = tmp_path / "checkpoints" / ".saving-step-00000040"
    half.mkdir()
    (half / "rank-00000.safetensors").write_bytes(b"half")

    Saver(tmp_path, alone, "local", keep_last=2)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000020"]


def test_the_file_of_a_rank_is_plain_safetensors(tmp_path: Path, alone: ProcessWorld):
    from safetensors.torch import load_file

    save(alone, tmp_path, 20, True)

    tensors = load_file(tmp_path / "last" / "rank-00000.safetensors")
    assert bits(tensors["exp_avg|odd|name|0"]) == bits(whole()["exp_avg"]["odd|name"])


def test_the_manifest_is_checked_by_a_standard_tool_and_names_every_file(
    tmp_path: Path, alone: ProcessWorld
):
    import subprocess

    save(alone, tmp_path, 20, True)
    folder = tmp_path / "last"
    tool = ["sha256sum"] if sys.platform == "linux" else ["shasum", "-a", "256"]
    subprocess.run([*tool, "-c", "manifest.sha256"], cwd=folder, check=True, capture_output=True)

    listed = {file["name"] for file in json.loads((folder / "manifest.json").read_text())["files"]}
    assert listed | {"manifest.json", "manifest.sha256"} == set(os.listdir(folder))
