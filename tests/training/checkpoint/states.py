"""Hand-made engine states: full tensors, sharded over ranks in several ways, and their writer."""

import torch

from gearshift.engines.base import Piece, State
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.storage import Storage

SHAPES = {"embed.weight": (11, 7), "odd|name": (7,), "scalar": (), "empty": (0, 3), "frozen": (5,)}
BUFFERS = {
    "counts": torch.arange(6).reshape(2, 3),
    "running.mean": torch.tensor(0.1),
    "mask": torch.tensor([True, False, True]),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}
GROUPS = [
    {"names": ["embed.weight"], "lr": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.1},
    {"names": ["odd|name", "scalar", "empty"], "lr": torch.tensor(1e-3), "weight_decay": 0.0},
]


def whole(seed=0):
    """Weights of every shape, slots of all but the frozen one; with a NaN and an infinity."""
    draw = torch.Generator().manual_seed(seed)
    kinds = {
        kind: {
            name: torch.randn(shape, generator=draw)
            for name, shape in SHAPES.items()
            if kind == "weight" or name != "frozen"
        }
        for kind in ("weight", "exp_avg", "exp_avg_sq")
    }
    kinds["weight"]["embed.weight"][0, :2] = torch.tensor([torch.nan, torch.inf])
    return kinds


def state(kinds, rank=0, size=1, replicated=True):
    """The shard of `rank` of `size`: all of it, or uneven intervals (some tensors empty)."""
    pieces, replica = [], (rank, size) if replicated else (0, 1)
    for kind, tensors in kinds.items():
        for name, tensor in tensors.items():
            flat = tensor.reshape(-1)
            first, last = 0, flat.numel()
            if not replicated:
                first, last = _cut(flat.numel(), rank, size)
            pieces.append(Piece(kind, name, first, flat[first:last], replica))
    trained = kinds["exp_avg"]
    return State(
        shapes={name: tuple(tensor.shape) for name, tensor in kinds["weight"].items()},
        pieces=pieces,
        buffers=BUFFERS,
        steps={name: 3.0 for i, name in enumerate(trained) if replicated or i % size == rank},
        groups=GROUPS,
        loss_scale={"scale": 65536.0, "growth_tracker": 7},
    )


def saving(run, world, in_background=False, last=2, best=1, every=None, at=None):
    """What saves into a run folder."""
    keep = Keep(last, best, every, at)
    return CheckpointWriter(Storage(run), world, "zero2", keep, in_background)


def bits(tensor):
    """The bytes of a tensor: equal for equal NaNs."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def _cut(count, rank, size):
    cuts = [0, *(count // (3 + r) for r in reversed(range(size - 1))), count]
    return cuts[rank], cuts[rank + 1]
