"""Any interval of a tensor of a checkpoint is read into its place."""

from functools import cache

import pytest
import torch

from gearshift.engines.base import Piece, State
from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from gearshift.training.checkpoint.manifest import BLOCK_BYTES, CheckpointError
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.resume_point import choose
from gearshift.training.optim.low_bit import Blocks, Blockwise
from tests.training.checkpoint.states import saving

SIZE = 5_000_000
"""Elements, in more than one block."""
FILE = "rank-00000.safetensors"


@cache
def values():
    draw = torch.Generator().manual_seed(3)
    return {kind: torch.randn(SIZE, generator=draw) for kind in ("weight", "exp_avg")}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one checkpoint of three blocks, which a test changes back."""
    folder = tmp_path_factory.mktemp("large")
    world = ProcessWorld(RankInfo(), torch.device("cpu"), 10.0)
    pieces = [Piece(kind, "w", 0, tensor) for kind, tensor in values().items()]
    state = State({"w": (SIZE,)}, pieces, {}, {"w": 1.0}, [{"names": ["w"]}], {})
    saving(folder, world).save(1, state, {"samples": 1}, periodic=True, score=None)
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_interval_is_read_into_its_place(run, dtype):
    """Across the blocks of the file, and into memory of another dtype."""
    whole = values()
    checkpoint = open_checkpoint(run / "last")
    for kind in whole:
        for start, stop in ((0, SIZE), (1, 3), (4_194_000, 4_195_000), (SIZE - 1, SIZE), (7, 7)):
            memory = torch.zeros(stop - start + 2, dtype=dtype)
            checkpoint.fill([Piece(kind, "w", start, memory[1:-1])])
            assert torch.equal(memory[1:-1], whole[kind][start:stop].to(dtype))
            assert not memory[0] and not memory[-1]


def test_states_of_8_bits_are_those_of_a_copy(run):
    expected, found = (Blockwise(Blocks(SIZE, True, torch.empty(0)), (SIZE,)) for _ in range(2))
    expected.copy_(values()["exp_avg"])
    open_checkpoint(run / "last").fill([Piece("exp_avg", "w", 0, found)])
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.scales, expected.scales)


@pytest.mark.parametrize("place", [BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5])
def test_a_flipped_bit_is_named_with_its_block_before_anything_is_read(run, alone, place):
    path = run / "last" / FILE
    intact = path.read_bytes()
    damaged = bytearray(intact)
    damaged[place] ^= 1
    path.write_bytes(damaged)
    try:
        with pytest.raises(CheckpointError) as raised:
            open_checkpoint(run / "last")
        assert choose(run, alone, None)[0] is None
    finally:
        path.write_bytes(intact)
    assert f"{FILE} is damaged" in str(raised.value)
    assert str(raised.value).endswith(f"at byte {place // BLOCK_BYTES * BLOCK_BYTES}")


def test_a_weight_that_is_not_finite_is_named_with_its_checkpoint(tmp_path, alone):
    weight = torch.tensor([1.0, torch.inf])
    state = State({"w": (2,)}, [Piece("weight", "w", 0, weight)], {}, {}, [{"names": ["w"]}], {})
    saving(tmp_path, alone).save(1, state, {"samples": 1}, periodic=True, score=None)
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(tmp_path / "last").fill([Piece("weight", "w", 0, torch.zeros(2))])
    assert str(raised.value).startswith(f"{tmp_path / 'last'}: the weight 'w' is not finite")


def test_numbers_of_64_bits_after_an_odd_count_of_32_are_read_back(tmp_path, alone):
    pieces = [
        Piece("weight", "narrow", 0, torch.randn(7)),
        Piece("weight", "wide", 0, torch.randn(BLOCK_BYTES // 8 + 3, dtype=torch.float64)),
    ]
    shapes = {piece.name: tuple(piece.data.shape) for piece in pieces}
    state = State(shapes, pieces, {}, dict.fromkeys(shapes, 1.0), [{"names": [*shapes]}], {})
    saving(tmp_path, alone).save(1, state, {"samples": 1}, periodic=True, score=None)
    for piece in pieces:
        target = torch.zeros_like(piece.data)
        open_checkpoint(tmp_path / "last").fill([Piece("weight", piece.name, 0, target)])
        assert torch.equal(target, piece.data)
