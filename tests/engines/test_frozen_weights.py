"""Frozen weights of 16 bits: their memory, their fp32 values, and the numbers of each engine."""

import gc
from functools import partial
from importlib import import_module

import torch
from torch import nn

from gearshift.engines.base import Options
from gearshift.engines.catalog import ENGINES, build_engine, find
from gearshift.engines.zero.config import shipped
from tests.engines.parity import around, spec
from tests.engines.test_parity import SHARDED, able

STEPS, ROWS, TIME = 3, 4, 5
WIDTH, WIDE, TOKENS = 8, 120, 37  # numbers of elements that no other tensor of a run has


class Adapted(nn.Module):
    """Frozen layers of most kinds, with a trained one between them."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(TOKENS, WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDTH)
        self.images, self.groups = nn.Conv1d(WIDTH, WIDTH, 3, padding=1), nn.GroupNorm(2, WIDTH)
        self.planes = nn.LayerNorm([TIME, WIDTH])
        self.positions = nn.Parameter(torch.randn(TIME, WIDTH))
        self.requires_grad_(False)
        for parameter in self.parameters():  # values that 16 bits hold exactly
            parameter.copy_(parameter.mul(0.3).bfloat16())
        self.trained = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens):  # [batch, time] -> [batch, time, width]
        x = self.embedding(tokens) + self.positions
        x = x + self.trained(self.norm(x))
        x = x + self.down(self.up(x).relu())
        x = self.groups(self.images(x.mT)).mT
        return self.planes(x)


def train(world, name, folder=None, is_plain=False):
    """The losses, the dtypes of what is held, and the shapes of fp32 copies of frozen weights."""
    gc.collect()  # the engine of another test
    before = fp32_tensors()
    world.local_size = world.size
    torch.manual_seed(0)
    with torch.no_grad():
        model = Adapted()
    entry = find(name)
    build = (
        getattr(import_module(entry.module), entry.builder)
        if is_plain
        else partial(build_engine, name)
    )
    layout = shipped(entry.ds_config) if entry.ds_config else {}
    engine = build(world, Options(precision="bf16", ds_config=layout, frozen_folder=folder))
    try:
        module, losses = engine.prepare(model, spec(1.0, 1e-2), []), []
        for step in range(STEPS):
            draw = torch.Generator().manual_seed(step)
            tokens = torch.randint(TOKENS, (ROWS, TIME), generator=draw)
            with engine.accumulate(last=True):
                loss = module(tokens.chunk(world.size)[world.rank]).float().square().mean()
                engine.backward(loss)
                copies = wide_copies(before)
            engine.step()
            losses.append(world.sum(loss.detach()).item())
        dtypes = {p.name: str(p.data.dtype) for p in engine.state().pieces if p.kind == "weight"}
        return losses, dtypes, copies
    finally:
        engine.close()


def fp32_tensors():
    tensors = (x for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter))
    return [x for x in tensors if x.dtype is torch.float32]


def wide_copies(before):
    """Numbers of elements of fp32 tensors that may be frozen matrices, without those `before`."""
    sizes, others = {WIDTH * WIDE, TOKENS * WIDTH, WIDTH * WIDE // 2}, {*map(id, before)}
    tensors = (x for x in fp32_tensors() if id(x) not in others)
    return sorted(sizes & {x.untyped_storage().nbytes() // 4 for x in tensors})


@able(*ENGINES, slow={*ENGINES} - {"local", "fsdp", "zero2-offload", "zero3"})
def test_frozen_matrices_take_two_bytes_in_a_step_and_numbers_are_those_of_fp32(worlds, engine):
    """Bit by bit, since 16 bits hold the values."""
    plain = worlds[2].run(train, engine, None, True)
    for (losses, dtypes, copies), (expected, _, _) in zip(
        worlds[2].run(train, engine), plain, strict=True
    ):
        assert losses == expected
        frozen = {name for name in dtypes if not name.startswith("trained")}
        halves = {name for name in dtypes if dtypes[name] == "torch.bfloat16"}
        vectors = {"norm.weight", "norm.bias", "up.bias", "down.bias"}
        vectors |= {"images.bias", "groups.weight", "groups.bias"}
        assert halves == frozen - (set() if engine in SHARDED else vectors)
        assert copies == []


@able("local", "fsdp", "zero2", "zero3", slow=("zero2", "zero3"))
def test_fp32_values_are_in_a_file_without_a_name(worlds, engine, tmp_path):
    for losses, dtypes, copies in worlds[2].run(train, engine, tmp_path):
        assert {*dtypes.values()} == {"torch.float32"}
        assert copies == []
        assert losses == worlds[2].run(train, engine)[0][0]
    assert [*tmp_path.iterdir()] == []


def frozen_values(world, name, folder):
    """The frozen weights whose fp32 values are not exact, and the error of outputs after a load.

    Values are not those that 16 bits hold. One weight is doubled, and the model computes with it.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        model, plain = Adapted(), Adapted()
        for parameter in model.parameters():
            parameter.mul_(1.001)
        plain.load_state_dict(model.state_dict())
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    options = {"precision": "bf16", "frozen_folder": folder}
    wrong = []
    with around(world, name, model, spec(1.0, 1e-2), **options) as (engine, module):
        for piece in engine.state().pieces:
            if piece.kind == "weight" and not piece.name.startswith("trained"):
                part = values[piece.name].reshape(-1)[piece.start :][: piece.data.numel()]
                wrong += [] if torch.equal(piece.data, part) else [piece.name]
                if piece.name == "planes.weight":
                    piece.data.mul_(2)
        engine.refresh()
        plain.planes.weight.data.mul_(2)
        tokens = torch.arange(2 * TIME).view(2, TIME)
        module.eval()
        with torch.no_grad():
            expected = plain(tokens)
            return wrong, ((module(tokens).float() - expected).norm() / expected.norm()).item()


@able("local", "fsdp", "zero3", slow=("zero3",))
def test_fp32_values_are_exact_and_are_loaded(worlds, engine, tmp_path):
    for wrong, apart in worlds[2].run(frozen_values, engine, tmp_path):
        assert wrong == [] and apart < 0.03
