"""The weights of the best checkpoint as one plain safetensors file."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gearshift.engines.base import Piece, State
from gearshift.training.checkpoint.manifest import CheckpointError, Score
from gearshift.training.checkpoint.reader import open_checkpoint, write_weights
from gearshift.training.checkpoint.tensor_file import read_head
from tests.training.checkpoint.states import BUFFERS, bits, saving, state, whole

EIGHT = torch.float8_e4m3fn


def averaged(rank=0, size=1):
    """A state with a moving average of all but the frozen parameter."""
    average = {"ema": whole(5)["exp_avg"]}
    mine = state(whole(), rank, size, replicated=False)
    joined = state({**whole(), **average}, rank, size, replicated=False).pieces
    return replace(mine, pieces=joined)


def save_the_best(world, run):
    saver = saving(run, world, in_background=True)
    saver.save(7, averaged(world.rank, world.size), {"samples": 1}, True, Score("l", 1.0, "min"))
    saver.wait()


def test_the_best_has_its_weights_in_one_file_that_other_libraries_read(tmp_path, two_ranks):
    two_ranks.run(save_the_best, tmp_path)

    with safe_open(tmp_path / "best" / "model.safetensors", framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", "kind": "ema", "step": "7"}
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    expected = {**whole()["weight"], **whole(5)["exp_avg"], **BUFFERS}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype), name
        assert bits(found[name]) == bits(tensor), name

    source = open_checkpoint(tmp_path / "best")
    assert source.kinds == ["ema", "exp_avg", "exp_avg_sq", "weight"]  # not read for a resume
    file = write_weights(source, tmp_path / "plain.safetensors")
    assert file.bytes == (tmp_path / "plain.safetensors").stat().st_size
    plain = load_file(tmp_path / "plain.safetensors")
    for name, tensor in whole()["weight"].items():
        assert bits(plain[name]) == bits(tensor), name

    path = tmp_path / "best" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        open_checkpoint(tmp_path / "best")


def test_a_file_of_weights_keeps_numbers_that_fp32_would_round(tmp_path, alone):
    wide = {
        "double": torch.full((3,), 1 + 2**-40, dtype=torch.float64),
        "ids": torch.tensor([2**40 + 1]),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    buffers = {
        "unsigned": torch.tensor([2**16 - 1], dtype=torch.uint16),
        "eight": torch.ones(2).to(EIGHT),
    }
    pieces = [Piece("weight", name, 0, tensor) for name, tensor in wide.items()]
    shapes = {name: tuple(tensor.shape) for name, tensor in wide.items()}
    saver = saving(tmp_path, alone)
    score = Score("l", 1.0, "min")
    saver.save(
        7, State(shapes, pieces, buffers, {}, [], {}), {"samples": 1}, periodic=True, score=score
    )
    saver.wait()
    found = load_file(tmp_path / "best" / "model.safetensors")
    for name, tensor in {**wide, **buffers, "half": wide["half"].float()}.items():
        assert (found[name].dtype, bits(found[name])) == (tensor.dtype, bits(tensor)), name


def test_names_select_and_rename_the_tensors_of_a_checkpoint_without_a_model_file(saved, tmp_path):
    assert not (saved / "model.safetensors").exists()  # saved without a score
    names = {"embed.weight": "theirs.weight", "counts": "counts"}
    write_weights(open_checkpoint(saved), tmp_path / "out", names=names)
    found = load_file(tmp_path / "out")
    assert found.keys() == {"theirs.weight", "counts"}
    assert bits(found["theirs.weight"]) == bits(whole()["weight"]["embed.weight"])


def test_every_tensor_is_aligned_to_its_width_for_readers_that_map_the_file(saved, tmp_path):
    write_weights(open_checkpoint(saved), tmp_path / "out")
    for path in (tmp_path / "out", saved / "rank-00000.safetensors"):
        entries, _ = read_head(path)
        assert len(entries) >= len(BUFFERS)
        assert [name for name, ((dtype, _), at) in entries.items() if at % dtype.itemsize] == []
