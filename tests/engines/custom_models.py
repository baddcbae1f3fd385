"""Models with special weights, buffers, hooks or forward passes, under an engine and in a plain loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from gearshift.engines import deferred_init
from gearshift.engines.base import EngineError, OptimizerSpec
from gearshift.engines.parameters import check_parameters, with_dense_tensors
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import restore
from gearshift.training.checkpoint.tensor_file import DTYPES
from gearshift.training.optim.ema import Ema
from tests.engines.parity import around
from tests.training.checkpoint.states import saving

N = 6
BATCH = 8
DECAY = 0.999
LATE = 20_000
"""Steps before the first one, as the average counts them: its decay is then constant."""


class Plain(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.lin, self.later = nn.Linear(N, N), nn.Linear(N, N)

    def forward(self, x, step):
        return self.later(self.lin(x.to(self.lin.weight.dtype)))


class Later(Plain):
    """The second layer is used from the third step on."""

    def forward(self, x, step):
        return super().forward(x, step) if step > 2 else self.lin(x)


class Complex(Plain):
    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.randn(N, N, dtype=torch.complex64) / N)

    def forward(self, x, step):
        return torch.view_as_real(super().forward(x, step).to(self.turn.dtype) @ self.turn).sum(-1)


class FrozenComplex(Complex):
    def __init__(self):
        super().__init__()
        self.turn.requires_grad_(False)


class ComplexBuffer(Plain):
    persistent = True

    def __init__(self):
        super().__init__()
        turn = torch.polar(torch.ones(N), torch.arange(N) / 7.0)
        self.register_buffer("turn", turn.conj(), persistent=self.persistent)

    def forward(self, x, step):
        return torch.view_as_real(super().forward(x, step) * self.turn).sum(-1)


class ComplexTable(ComplexBuffer):
    persistent = False


class Double(Plain):
    def __init__(self):
        super().__init__()
        self.double()


class Half(Plain):
    def __init__(self):
        super().__init__()
        self.bfloat16()


class ManyBuffers(Plain):
    """Buffers of the types that gloo does not send; three change in each pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("short", torch.arange(N, dtype=torch.int16))
        self.register_buffer("unsigned", torch.arange(N).to(torch.uint16))
        self.register_buffer("eight", (torch.arange(N) / 4).to(torch.float8_e4m3fn))
        self.register_buffer("sixteen", torch.ones(N, dtype=torch.float16))
        self.register_buffer("mask", torch.arange(N) > 1)
        self.register_buffer("scalar", torch.tensor(3, dtype=torch.int16))
        self.register_buffer("large", torch.tensor(2**40 + 1))
        self.register_buffer("empty", torch.zeros(0, dtype=torch.int16))
        self.register_buffer("expanded", torch.tensor(1.5).expand(N))
        self.register_buffer("windows", torch.arange(2.0 * N).unfold(0, N, 1))

    def forward(self, x, step):
        factor = self.short + self.sixteen * self.mask + self.eight.float() + self.unsigned.float()
        if self.training:
            self.scalar.add_(1)
            self.sixteen.mul_(0.5)
            self.mask.logical_not_()
        return super().forward(x, step) * factor * self.expanded + self.windows.sum()


class WholeNumbers(Plain):
    """A frozen parameter of whole numbers that float32 cannot hold."""

    def __init__(self):
        super().__init__()
        self.ids = nn.Parameter(torch.arange(N) + 2**30 + 1, requires_grad=False)

    def forward(self, x, step):
        return super().forward(x, step) * (self.ids - 2**30)


def kept_rows(gradient):
    return gradient * torch.tensor([1.0, 0.0, 1.0, 0.0, 2.0, 1.0]).unsqueeze(1)


class Hooked(Plain):
    """A gradient whose rows are masked and scaled."""

    def __init__(self):
        super().__init__()
        self.lin.weight.register_hook(kept_rows)


@torch.no_grad()
def halve_rows(parameter):
    parameter.grad[1::2] /= 2


class HookedAfter(Plain):
    """The gradients of earlier micro-batches, too, are changed after each of them."""

    def __init__(self):
        super().__init__()
        self.lin.weight.register_post_accumulate_grad_hook(halve_rows)


class InTheFirst(Plain):
    """The second layer is used in the first micro-batch of a step only."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x, step):
        self.passes += 1
        is_first = self.passes % self.micro_batches == 1
        return super().forward(x, step) if is_first else self.lin(x)


class FirstOfThree(InTheFirst):
    micro_batches = 3


class FirstOfFour(InTheFirst):
    micro_batches = 4


class ShiftedInTheFirst(FirstOfThree):
    """A hook that would move a gradient of zeros, too."""

    def __init__(self):
        super().__init__()
        self.later.weight.register_hook(lambda gradient: gradient + 0.1)


class HookedModule(Plain):
    """A hook of a module, which changes the gradient of its output."""

    def __init__(self):
        super().__init__()
        self.lin.register_full_backward_pre_hook(lambda module, gradients: (gradients[0] * 2,))


class Limited(Plain):
    """An embedding whose rows are shortened where they are read."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(N, N, max_norm=0.5)

    def forward(self, x, step):
        return super().forward(x + self.words((x[:, 0].abs() * 4).long().clamp(max=N - 1)), step)


class FrozenLimited(Limited):
    def __init__(self):
        super().__init__()
        self.words.weight.requires_grad_(False)


class LimitedByHand(Plain):
    """The same without the module."""

    def __init__(self):
        super().__init__()
        self.words = nn.Parameter(torch.randn(N, N))

    def forward(self, x, step):
        rows = (x[:, 0].abs() * 4).long().clamp(max=N - 1)
        return super().forward(x + F.embedding(rows, self.words, max_norm=0.5), step)


class Parametrized(Plain):
    """Weights that are computed of others, and of buffers that change in each pass."""

    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.lin)
        nn.utils.parametrizations.spectral_norm(self.later)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2)


def dampened(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5)


class Lion(torch.optim.Optimizer):
    """An optimizer of a user that counts no steps."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    def slots(self, group):
        return ("exp_avg",)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    if not state:
                        state["exp_avg"] = p.grad.clone()
                    state["exp_avg"].lerp_(p.grad, 0.1)
                    p.add_(state["exp_avg"].sign(), alpha=-group["lr"])


def lion(parameters):
    return Lion(parameters, lr=0.01)


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    optimizer: Callable[[list], torch.optim.Optimizer] = adamw
    named: str = ""
    """What an error names."""
    tolerance: float = 1e-5
    micro_batches: int = 2


CASES = {
    "complex": Case(Complex, named="turn"),
    "frozen complex": Case(FrozenComplex, named="turn"),
    "complex buffer": Case(ComplexBuffer, named="turn"),
    "complex table": Case(ComplexTable),
    "float64": Case(Double, named="lin.weight", tolerance=1e-10),
    "buffers": Case(ManyBuffers),
    "whole numbers": Case(WholeNumbers),
    "hook": Case(Hooked, named="lin.weight"),
    "hook after": Case(HookedAfter, named="lin.weight"),
    "first of three": Case(FirstOfThree, micro_batches=3),
    "first of four": Case(FirstOfFour, micro_batches=4),
    "hook in the first": Case(ShiftedInTheFirst, named="later.weight", micro_batches=3),
    "module hook": Case(HookedModule),
    "max_norm": Case(Limited, named="words.weight"),
    "frozen max_norm": Case(FrozenLimited, named="words.weight"),
    "renorm": Case(LimitedByHand, named="words"),
    "parametrized": Case(Parametrized),
    "dampening": Case(Later, dampened),
    "lion": Case(Later, lion),
    "bf16": Case(Half, tolerance=2e-2),
}


@dataclass
class Trained:
    losses: list[float] = field(default_factory=list)
    tensors: dict[tuple[str, str, int], torch.Tensor] = field(default_factory=dict)
    """Of an engine the flat parts on this rank, by kind, name and first element."""
    buffers: dict[str, torch.Tensor] = field(default_factory=dict)


def samples(step):
    return torch.randn(BATCH, N, generator=torch.Generator().manual_seed(step))


def loss_of(model, x, step):
    out = model(x, step)
    return (out - x.flip(1).to(out.dtype)).square().mean(-1).sum() / BATCH


def trained_or_refused(world, engine_name, case_name, last=4, folder=None, first=1):
    """What an engine trains, or its error before the first update.

    With a `folder` it saves there after the last step, and starts from there if `first` is not 1.
    """
    case, updates = CASES[case_name], 0
    world.local_size = world.size
    torch.manual_seed(first)
    try:
        model, initial = deferred_init.build(partial(with_dense_tensors, case.build), world)
        blocks = [model.lin]
        check_parameters(model, blocks, engine_name, world.size, DTYPES)
        spec = OptimizerSpec(
            [{}], lambda *_: 0, lambda groups: case.optimizer(groups[0]["params"]), None
        )
        with around(world, engine_name, model, spec, blocks) as (engine, module):
            deferred_init.write(initial, engine)
            average = Ema(engine, DECAY)
            if first > 1:
                checkpoint = open_checkpoint(Path(folder, f"checkpoints/step-{first - 1:08}"))
                restore(checkpoint, engine)
                checkpoint.fill(average.pieces)
            done = Trained()
            for step in range(first, last + 1):
                loss = one_step(world, engine, module.train(), step, case.micro_batches)
                done.losses.append(loss)
                updates += 1
                engine.settle()
                average.update(LATE + step)
            state = average.joined(engine.state())
            if folder is not None:
                writer = saving(Path(folder), world)
                writer.save(last, state, {"samples": last}, periodic=True, score=None)
                writer.wait()
            done.tensors = {
                (p.kind, p.name, p.start): p.data.detach().clone() for p in state.pieces
            }
            done.buffers = {name: buffer.clone() for name, buffer in state.buffers.items()}
            return done
    except EngineError as error:
        assert not updates, error
        return str(error)


def one_step(world, engine, module, step, micro_batches):
    """The loss of the global batch."""
    total = torch.zeros((), dtype=torch.float64)
    for number, part in enumerate(samples(step).chunk(micro_batches), start=1):
        held = part.chunk(world.size)[world.rank]
        with engine.accumulate(last=number == micro_batches):
            loss = loss_of(module, held, step)
            engine.backward(loss * world.size)
        total += loss.detach()
    engine.step()
    return world.sum(total).item()


def in_a_plain_loop(case_name, last=4):
    """What PyTorch trains without this program."""
    case, done = CASES[case_name], Trained()
    torch.manual_seed(1)
    model = case.build()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = case.optimizer(list(named.values()))
    averages = {name: p.detach().double().clone() for name, p in named.items()}
    for step in range(1, last + 1):
        loss = 0.0
        for part in samples(step).chunk(case.micro_batches):
            of_part = loss_of(model, part, step)
            of_part.backward()
            loss += of_part.item()
        optimizer.step()
        optimizer.zero_grad()
        done.losses.append(loss)
        for name, p in named.items():
            averages[name] = DECAY * averages[name] + (1 - DECAY) * p.detach().double()
    weights = {("weight", name, 0): p.detach() for name, p in model.named_parameters()}
    done.tensors = {**weights, **{("ema", name, 0): value for name, value in averages.items()}}
    done.buffers = dict(model.named_buffers())
    return done
