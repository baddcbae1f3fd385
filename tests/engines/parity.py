"""A small training run with the usual differences between engines, for any engine."""

import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from gearshift.engines.base import (
    KEEPS_FP32,
    LR_FACTOR,
    PART,
    OptimizerSpec,
    Options,
    Precision,
    kind_shape,
)
from gearshift.engines.catalog import build_engine, find
from gearshift.engines.zero.config import shipped
from gearshift.training.optim.groups import lr_factors
from gearshift.training.optim.low_bit import LowBitAdamW
from gearshift.training.optim.muon import Muon
from gearshift.training.optim.updater import set_lr
from gearshift.training.settings import Optim

WIDTH, HEADS, BLOCKS, VOCABULARY, TIME = 16, 2, 3, 37, 12
ACCUMULATION = 3
GLOBAL_BATCH = 12
IGNORED = -100


@dataclass(frozen=True)
class Case:
    """A training run: engine, precision and data."""

    engine: str
    steps: int = 20
    precision: Precision = "fp32"
    activation_checkpointing: int = 0
    keep_products: bool = False
    activation_offload: bool = False
    clip_norm: float | None = 0.5
    lr: float = 3e-3
    overflow_at: int | None = None
    """The step at which the loss of one sequence becomes infinite."""
    compile: bool = False
    seed: int = 0
    nodes: int | None = None
    """Simulated nodes, with a replica of the shards on each."""
    reduce_each_micro_batch: bool = False
    muon: bool = False
    """Muon for the matrices of the blocks; else AdamW for all."""
    adafactor: bool = False
    factors: bool = False
    """Learning rates of parts, with decay over the blocks; else one for all."""
    state: str = "fp32"
    """`optim.state`, here of tensors of 64 elements or more."""
    zero: Mapping[str, Any] = field(default_factory=dict)
    """Keys of `zero_optimization` that override those of the engine."""


class StepResult(NamedTuple):
    """The loss of the global batch of a step, and its `Update`."""

    loss: float
    norm: float
    skipped: bool
    loss_scale: float | None


@dataclass(frozen=True)
class Outcome:
    """The results of a run on one rank, with the state it holds."""

    losses: list[float]
    norms: list[float]
    skipped: list[bool]
    loss_scales: list[float | None]
    shapes: dict[str, tuple[int, ...]]
    pieces: list[tuple[str, str, int, np.ndarray, tuple[int, int]]]
    buffers: dict[str, np.ndarray]
    steps: dict[str, float]
    groups: list[dict]
    loss_scale: dict[str, float]
    without_gradient: list[str]


class Block(nn.Module):
    """Attention and a hidden layer, each added to the stream."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        # No bias: that of the keys has no gradient but rounding, which Adam would blow up.
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.hidden = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):  # [batch, time, width]
        if self.training:
            self.calls.add_(1)
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.hidden(self.norm2(x))


class Net(nn.Module):
    """A small GPT: tied head, a frozen matrix, buffers, a parameter that does not divide by two."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.positions = nn.Parameter(0.1 * torch.randn(TIME, WIDTH))
        self.frozen = nn.Linear(WIDTH, WIDTH, bias=False)
        self.frozen.requires_grad_(False)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)
        self.seven = nn.Parameter(torch.ones(7))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("level", torch.ones(3))
        self.register_buffer("table", torch.arange(5.0), persistent=False)

    def forward(self, tokens):  # [batch, time] -> [batch, time, vocabulary]
        if self.training:
            self.level.mul_(0.9).add_(0.05)
        x = self.embedding(tokens) + self.positions
        # Added, not multiplied: under torch.compile backward would read a factor after it moved on.
        x = x + self.frozen(x) + self.level.mean()
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)) * self.seven.mean()


FACTORS = Optim(groups={"norm": 3.0, "embedding": 0.5}, layer_decay=0.4)


class Parts:
    """A task that names the blocks of Net."""

    def model_parts(self, model):
        return {"layers": model.blocks}


def sequences(step):
    """Tokens and labels [sequence, time] of one global batch: uneven padding, some without labels.

    The micro-batch in the middle has no label at all; the last has none on the second of two
    ranks, whose work is then uneven to that of the first.
    """
    draw = torch.Generator().manual_seed(1000 + step)
    tokens = torch.randint(VOCABULARY, (GLOBAL_BATCH, TIME + 1), generator=draw)
    lengths = torch.randint(1, TIME + 1, (GLOBAL_BATCH, 1), generator=draw)
    size = GLOBAL_BATCH // ACCUMULATION
    lengths[size : 2 * size] = 0
    lengths[-size // 2 :] = 0
    labels = tokens[:, 1:].masked_fill(torch.arange(TIME) >= lengths, IGNORED)
    return tokens[:, :-1], labels


def muon_spec(clip_norm, lr):
    """Muon for the matrices of the blocks, AdamW with and without decay for the rest."""
    plain = spec(clip_norm, lr)

    def group_of(name, parameter):
        is_matrix = name.startswith("blocks.") and parameter.dim() == 2
        return 0 if is_matrix else 1 + plain.group_of(name, parameter)

    return replace(
        plain,
        options=[{"weight_decay": 0.1, "momentum": 0.95}, *plain.options],
        group_of=group_of,
        build=lambda groups: Muon(groups, lr=lr, betas=(0.9, 0.95), fused=True),
    )


def adafactor_spec(clip_norm, lr):
    """Adafactor, with factored slots."""
    return replace(
        spec(clip_norm, lr), build=partial(torch.optim.Adafactor, lr=lr, eps=(None, 1.0))
    )


def low_bit_spec(state, clip_norm, lr):
    """AdamW with moments of fewer bits, with and without decay."""
    adamw = {"lr": lr, "betas": (0.9, 0.95), "fused": True}
    plain = replace(
        spec(clip_norm, lr), build=lambda groups: LowBitOfSmall(groups, state=state, **adamw)
    )
    few = {KEEPS_FP32: True}
    return divided(plain, lambda name, p: few if p.numel() < LowBitOfSmall.least else {}, [few])


def divided(plain, extra, extras):
    """`plain` with the options that `extra` adds for a name and a parameter, one of `extras`."""
    options = [*plain.options, *({**old, **new} for new in extras for old in plain.options)]

    def group_of(name, parameter):
        old = plain.options[plain.group_of(name, parameter)]
        return options.index({**old, **extra(name, parameter)})

    return replace(plain, options=options, group_of=group_of)


class LowBitOfSmall(LowBitAdamW):
    least = 64


def spec(clip_norm, lr):
    """AdamW with and without decay."""
    return OptimizerSpec(
        options=[{"weight_decay": 0.1}, {"weight_decay": 0.0}],
        group_of=lambda name, parameter: 0 if parameter.dim() > 1 else 1,
        build=lambda groups: torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True),
        clip_norm=clip_norm,
    )


@contextmanager
def around(world, name, model, optimizer, blocks=(), **changes):
    """The engine `name`, with changes of its options, and `model` prepared by it."""
    file = find(name).ds_config
    given = Options(**{"ds_config": shipped(file) if file else {}, **changes})
    engine = build_engine(name, world, given)
    if file:
        allow_fp16_on_cpu()
    try:
        yield engine, engine.prepare(model, optimizer, list(blocks))
    finally:
        engine.close()


def options(case, world):
    """The options of the engine of `case`."""
    file = find(case.engine).ds_config
    layout = shipped(file) if file else {}
    if case.zero:
        layout = {"zero_optimization": {**layout["zero_optimization"], **case.zero}}
    return Options(
        precision=case.precision,
        activation_checkpointing=case.activation_checkpointing,
        compile=case.compile,
        keep_products=case.keep_products,
        activation_offload=case.activation_offload,
        hybrid_shard=case.nodes is not None,
        reduce_each_micro_batch=case.reduce_each_micro_batch,
        ds_config=layout,
        micro_batch=GLOBAL_BATCH // ACCUMULATION // world.size,
        accumulation=ACCUMULATION,
        frozen_folder=Path(tempfile.gettempdir()),
    )


@contextmanager
def prepared(world, case, seed=0):
    """The engine of `case`, and a model of `seed` prepared by it."""
    torch.manual_seed(seed)
    model = Net()
    of = muon_spec if case.muon else adafactor_spec if case.adafactor else spec
    of = of if case.state == "fp32" else partial(low_bit_spec, case.state)
    optimizer = of(case.clip_norm, case.lr)
    if case.factors:
        factors = {
            name: dict(zip((PART, LR_FACTOR), factor, strict=True))
            for name, factor in lr_factors(FACTORS, model, Parts()).items()
        }
        optimizer = divided(optimizer, lambda name, p: factors.get(name, {}), factors.values())
    chosen = vars(options(case, world))
    with around(world, case.engine, model, optimizer, model.blocks, **chosen) as (engine, module):
        set_lr(engine.groups, case.lr)
        module.train()
        yield engine, module


def allow_fp16_on_cpu():
    """DeepSpeed refuses fp16 on processors that compute it slowly; tests have nothing else."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        accelerator.is_fp16_supported = lambda: True


def train(world, case):
    """Take the steps of `case` as the training loop would. Collective."""
    world.local_size = world.size // (case.nodes or 1)
    with prepared(world, case, case.seed) as (engine, module):
        steps = range(1, case.steps + 1)
        return outcome(engine, [one_step(world, engine, module, case, step) for step in steps])


def outcome(engine, taken):
    """The results of the steps `taken` on this rank, and its state."""
    state = engine.state()
    return Outcome(
        [step.loss for step in taken],
        [step.norm for step in taken],
        [step.skipped for step in taken],
        [step.loss_scale for step in taken],
        dict(state.shapes),
        [
            (p.kind, p.name, p.start, torch.empty(p.data.shape).copy_(p.data).numpy(), p.replica)
            for p in state.pieces
        ],
        {name: buffer.cpu().numpy().copy() for name, buffer in state.buffers.items()},
        dict(state.steps),
        [dict(group) for group in state.groups],
        dict(state.loss_scale),
        list(engine.without_gradient),
    )


def one_step(world, engine, module, case, step):
    """Step number `step` of `case`. Collective."""
    tokens, labels = (tensor.to(world.device) for tensor in sequences(step))
    # A sequence is in the same micro-batch for any world size: buffers move between them.
    micro_batches = [
        (inputs.chunk(world.size)[world.rank], targets.chunk(world.size)[world.rank])
        for inputs, targets in zip(
            tokens.chunk(ACCUMULATION), labels.chunk(ACCUMULATION), strict=True
        )
    ]
    units = world.sum(torch.cat([targets for _, targets in micro_batches]).ne(IGNORED).sum())
    total = torch.zeros((), device=world.device)
    for index, (inputs, targets) in enumerate(micro_batches, start=1):
        with engine.accumulate(last=index == len(micro_batches)):
            logits = module(inputs)
            loss = F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            total += loss.detach()
            # The first micro-batch of the last rank: what one rank sees, all must act on.
            if step == case.overflow_at and index == 1 and world.rank == world.size - 1:
                loss = loss * 1e38
            engine.backward(loss * world.size / units)
    update = engine.step()
    loss = (world.sum(total) / units).item()
    return StepResult(loss, update.norm.item(), update.skipped, update.loss_scale)


def joined(outcomes):
    """Every tensor of the state by kind and name, joined from the pieces of all ranks.

    Raises AssertionError where pieces overlap, contradict each other or leave a hole.
    """
    shapes = outcomes[0].shapes
    joined_tensors = {}
    for outcome in outcomes:
        for kind, name, start, data, (replica, _) in outcome.pieces:
            size = int(np.prod(kind_shape(kind, shapes[name]), dtype=np.int64))
            flat = joined_tensors.setdefault((kind, name), np.full(size, np.nan, np.float32))
            interval = flat[start : start + len(data)]
            if replica:
                assert np.array_equal(interval, data)
            else:
                assert np.isnan(interval).all()
            interval[:] = data
    for (kind, name), flat in joined_tensors.items():
        assert not np.isnan(flat).any(), f"{kind} of {name} has a hole"
    return {
        (kind, name): flat.reshape(kind_shape(kind, shapes[name]))
        for (kind, name), flat in joined_tensors.items()
    }


def distance(outcomes, others):
    """The largest difference of losses, norms and each kind of tensor, relative to the others.

    For tensors relative to the largest element of the tensor. Raises AssertionError where one run
    holds a tensor that the other does not.
    """
    first, second = outcomes[0], others[0]
    farthest = {
        "loss": _distance(np.array(first.losses), np.array(second.losses)),
        "norm": _distance(np.array(first.norms), np.array(second.norms)),
    }
    mine, theirs = joined(outcomes), joined(others)
    assert mine.keys() == theirs.keys()
    for (kind, name), value in theirs.items():
        largest = np.abs(value).max() or 1.0
        apart = float(np.abs(mine[kind, name] - value).max() / largest)
        farthest[kind] = max(farthest.get(kind, 0.0), apart)
    return farthest


def _distance(values, others):
    """Values that are not finite are equal to each other only."""
    finite = np.isfinite(others)
    if not np.array_equal(finite, np.isfinite(values)):
        return float("inf")
    return float((np.abs(values - others)[finite] / np.abs(others)[finite]).max(initial=0.0))
