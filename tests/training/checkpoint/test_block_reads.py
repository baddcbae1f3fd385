"""A block of a checkpoint is checked as it is read into its place, and nothing else is read."""

import os
from functools import cache

import psutil
import pytest
import torch

from gearshift.engines.base import Piece, State
from gearshift.training.checkpoint.block_reads import BlockReads
from gearshift.training.checkpoint.manifest import BLOCK_BYTES, CheckpointDamaged, CheckpointError
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.resume_point import choose
from gearshift.training.optim.low_bit import Blocks, Blockwise
from tests.training.checkpoint.states import saving
from tests.training.tiny import one_rank

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
    world = one_rank()
    pieces = [Piece(kind, "w", 0, tensor) for kind, tensor in values().items()]
    buffers = {"counts": torch.arange(3), "mask": torch.tensor([True, False])}
    state = State({"w": (SIZE,)}, pieces, buffers, {"w": 1.0}, [{"names": ["w"]}], {})
    saving(folder, world).save(1, state, {"samples": 1}, periodic=True, score=None)
    return folder


@pytest.fixture
def flipped(run):
    """Flips a bit of the file, once more at the end."""
    path, places = run / "last" / FILE, []

    def flip(place):
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))

    def once(place):
        places.append(place)
        flip(place)

    yield once
    for place in places:
        flip(place)


def unverified(run):
    return open_checkpoint(run / "last", verify=False)


def pieces_of(start, stop, kind="exp_avg"):
    return [Piece(kind, "w", start, torch.zeros(stop - start))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_interval_is_read_into_its_place(run, dtype):
    """Across the blocks of the file, and into memory of another dtype."""
    whole = values()
    for kind in whole:
        for start, stop in ((0, SIZE), (1, 3), (4_194_000, 4_195_000), (SIZE - 1, SIZE), (7, 7)):
            memory = torch.zeros(stop - start + 2, dtype=dtype)
            unverified(run).fill([Piece(kind, "w", start, memory[1:-1])])
            assert torch.equal(memory[1:-1], whole[kind][start:stop].to(dtype))
            assert not memory[0] and not memory[-1]


def test_states_of_8_bits_are_those_of_a_copy(run):
    expected, found = (Blockwise(Blocks(SIZE, True, torch.empty(0)), (SIZE,)) for _ in range(2))
    expected.copy_(values()["exp_avg"])
    unverified(run).fill([Piece("exp_avg", "w", 0, found)])
    assert torch.equal(found.codes, expected.codes) and torch.equal(found.scales, expected.scales)


@pytest.mark.parametrize("place", [BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5])
def test_a_flipped_bit_is_named_with_its_block(run, flipped, place):
    flipped(place)
    whole = [*pieces_of(0, SIZE, "weight"), *pieces_of(0, SIZE)]
    with pytest.raises(CheckpointDamaged) as raised:
        unverified(run).fill(whole)
    assert f"{FILE} is damaged" in str(raised.value)
    assert str(raised.value).endswith(f"at byte {place // BLOCK_BYTES * BLOCK_BYTES}")


def test_a_flipped_bit_in_the_rest_of_a_block_is_found_and_one_elsewhere_is_not_read(run, flipped):
    flipped(BLOCK_BYTES + 10)
    unverified(run).fill(pieces_of(0, 10, "weight"))
    with pytest.raises(CheckpointDamaged):
        unverified(run).fill(pieces_of(SIZE - 10, SIZE, "weight"))


def test_a_flipped_bit_of_a_buffer_is_found(run, flipped):
    checkpoint = unverified(run)
    buffer = Piece("buffer", "mask", 0, torch.zeros(2, dtype=torch.bool))
    ((_, place, *_),) = checkpoint.located("buffer", "mask", 0, 2)
    BlockReads(checkpoint, [buffer]).run()
    flipped(place)
    with pytest.raises(CheckpointDamaged):
        BlockReads(checkpoint, [buffer]).run()


BUFFER_SIZE = 3 * BLOCK_BYTES // 8
"""64-bit numbers, which fill a block that no other tensor shares."""
ODD = {
    ("weight", "w"): torch.arange(5.0),
    ("ema", "w"): torch.arange(5.0) + 1,
    ("exp_avg", "w"): torch.arange(5.0) + 2,
    ("exp_avg_sq", "w"): torch.arange(5.0) + 3,
    ("buffer", "large"): torch.arange(BUFFER_SIZE),
    ("buffer", "half"): torch.ones(3, dtype=torch.bfloat16),
}


def state_of(tensors):
    """A state of tensors by kind and name."""
    pieces = [Piece(k, n, 0, tensor) for (k, n), tensor in tensors.items() if k != "buffer"]
    buffers = {name: tensor for (k, name), tensor in tensors.items() if k == "buffer"}
    return State({"w": (5,)}, pieces, buffers, {"w": 1.0}, [{"names": ["w"]}], {})


def targets():
    return [Piece(kind, name, 0, torch.zeros_like(t)) for (kind, name), t in ODD.items()]


def test_a_flipped_byte_of_each_kind_of_tensor_is_found(tmp_path, alone):
    saving(tmp_path, alone).save(1, state_of(ODD), {"samples": 1}, periodic=True, score=None)
    unverified(tmp_path).fill(targets())
    for (kind, name), tensor in ODD.items():
        checkpoint = unverified(tmp_path)
        ((file, start, *_),) = checkpoint.located(kind, name, 0, tensor.numel())
        size = tensor.numel() * checkpoint.dtype(kind, name).itemsize
        with (tmp_path / "last" / file).open("r+b", buffering=0) as stream:
            byte = os.pread(stream.fileno(), 1, start + size // 2)
            os.pwrite(stream.fileno(), bytes([byte[0] ^ 128]), start + size // 2)
            with pytest.raises(CheckpointDamaged):
                unverified(tmp_path).fill(targets())
            os.pwrite(stream.fileno(), byte, start + size // 2)
    unverified(tmp_path).fill(targets())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["weight", "ema", "exp_avg"])
def test_a_value_that_is_not_finite_is_refused_in_weights_and_their_average(
    tmp_path, alone, kind, value
):
    tensor = torch.arange(5.0)
    tensor[3] = value
    state = state_of({**ODD, (kind, "w"): tensor})
    saving(tmp_path, alone).save(1, state, {"samples": 1}, periodic=True, score=None)
    pieces = targets()
    if kind == "exp_avg":  # a model computes with it in no forward pass
        unverified(tmp_path).fill(pieces)
        return
    with pytest.raises(CheckpointError, match="'w'"):
        unverified(tmp_path).fill(pieces)


def test_a_weight_that_is_not_finite_is_named_with_its_file(tmp_path, alone):
    weight = torch.tensor([1.0, torch.inf])
    state = State({"w": (2,)}, [Piece("weight", "w", 0, weight)], {}, {}, [{"names": ["w"]}], {})
    saving(tmp_path, alone).save(1, state, {"samples": 1}, periodic=True, score=None)
    with pytest.raises(CheckpointError) as raised:
        unverified(tmp_path).fill([Piece("weight", "w", 0, torch.zeros(2))])
    assert str(tmp_path / "last" / FILE) in str(raised.value) and "'w'" in str(raised.value)


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="needs counts of bytes read")
def test_a_resume_reads_each_byte_once(run, alone):
    """But for the head of a file, which it reads first."""
    process = psutil.Process()
    before = process.io_counters().read_chars
    checkpoint, _ = choose(run, alone, None, verify=False)
    checkpoint.fill([*pieces_of(0, SIZE, "weight"), *pieces_of(0, SIZE)])
    read = process.io_counters().read_chars - before
    size = (run / "last" / FILE).stat().st_size
    assert size <= read < size + 2**20


def test_a_checkpoint_is_chosen_by_its_heads_if_the_rest_is_checked_later(run, alone, flipped):
    flipped(BLOCK_BYTES + 10)
    assert choose(run, alone, None, verify=False)[0].folder.name == "step-00000001"
    assert choose(run, alone, None)[0] is None
    flipped(20)
    assert choose(run, alone, None, verify=False)[0] is None


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
        unverified(tmp_path).fill([Piece("weight", piece.name, 0, target)])
        assert torch.equal(target, piece.data)
