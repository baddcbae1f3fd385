"""Changes of weights and optimizer by the loop work under any sharding."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gearshift.engines.catalog import ENGINES, build_engine, missing
from gearshift.engines.loss_scale import LossScale
from gearshift.training.accumulate import Accumulated
from gearshift.training.optim.guarded import guarded
from gearshift.training.optim.updater import Nonfinite
from tests.engines.parity import Case, allow_fp16_on_cpu, options, spec

# DeepSpeed knows no float64.
TASK = {"dtype": torch.float32, "nan_gradient_at": [5]}
CHANGES = {
    "train": {"epochs": 2, "ema": 0.8, "on_nonfinite": "skip 1"},
    "eval": {"every": 2},
    "log": {"every": 1},
    "optim": {"name": "sgd", "lr": 0.05, "clip_norm": None},
}


STEPS, SKIPPED = 5, 3


def with_a_skipped_step(world, engine_name, precision, scale, bad):
    """Norms and weights of five steps of two micro-batches; the third update is skipped.

    In its micro-batch `bad` the last rank has an infinite gradient. None: it is discarded by hand.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))
    case = Case(engine_name, precision=precision)
    engine = build_engine(engine_name, world, replace(options(case, world), accumulation=2))
    if ENGINES[engine_name].ds_config:
        allow_fp16_on_cpu()
    try:
        module = engine.prepare(model, guarded(spec(0.5, 0.01), world), list(model))
        state = engine.state()
        if scale is not None:
            engine.load(dict.fromkeys(state.shapes, 0.0), {"value": scale, "good_updates": 0.0})
        nonfinite, norms = Nonfinite("skip 1"), []
        draw = torch.Generator().manual_seed(world.rank)
        for step in range(1, STEPS + 1):
            for number in range(2):
                with engine.accumulate(last=number == 1):
                    loss = module(torch.randn(4, 8, generator=draw)).float().square().mean()
                    is_bad = (step, number, world.rank) == (SKIPPED, bad, world.size - 1)
                    engine.backward(loss * torch.inf if is_bad else loss)
            if bad is None and step == SKIPPED:
                engine.discard()
                continue
            update = nonfinite.take(engine, Accumulated(loss.detach(), {}, 8), step)
            assert update.skipped == (step == SKIPPED)
            if not update.skipped:
                norms.append(update.norm.item())
        return norms, [p.data.clone() for p in engine.state().pieces]
    finally:
        engine.close()


# By turns: bad in the first micro-batch or the last one, one rank or two.
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("engine", ENGINES)
def test_steps_after_one_that_is_not_finite_are_those_without_it(worlds, engine, precision):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    turn = (list(ENGINES).index(engine) + (precision == "fp16")) % 2
    count = list(ENGINES).index(engine) + turn
    size, scale = 1 + count // 2 % 2, None
    if precision == "fp16":
        scale = (LossScale.MINIMUM, 64.0)[turn]  # searching, half of it is as good: powers of two
    runs = [
        worlds[size].run(with_a_skipped_step, engine, precision, scale, bad)
        for bad in (count % 2, None)
    ]
    for (norms, pieces), (norms_without, pieces_without) in zip(*runs, strict=True):
        assert norms == norms_without and all(map(math.isfinite, norms))
        assert all(torch.equal(*pair) for pair in zip(pieces, pieces_without, strict=True))
