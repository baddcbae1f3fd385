import pytest
import torch
from torch import nn

from gearshift.engines.base import KEEPS_FP32, LR_FACTOR
from gearshift.engines.preparation import build_optimizer
from gearshift.training.optim import optimizer as optim
from tests.training.tiny import make_settings, one_rank


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.LayerNorm(5)
        self.last = nn.Linear(5, 2, bias=False)
        self.fixed = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def build(model, **changes):
    spec = optim.spec(make_settings(**changes), model, one_rank())
    return spec, build_optimizer(spec, dict(model.named_parameters()))


def test_matrices_decay_and_vectors_do_not():
    model = Net()
    _, optimizer = build(model, optim={"weight_decay": 0.3})
    decaying, still = optimizer.param_groups
    assert decaying["weight_decay"] == 0.3
    assert still["weight_decay"] == 0.0
    assert decaying["params"] == [model.first.weight, model.last.weight]
    assert still["params"] == [model.first.bias, model.norm.weight, model.norm.bias]


def test_an_optimizer_gets_the_numbers_of_the_settings():
    spec, optimizer = build(
        Net(), optim={"lr": 0.5, "betas": [0.7, 0.8], "eps": 1e-5, "clip_norm": 2.0}
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.7, 0.8), 1e-5)
    assert spec.clip_norm == 2.0
    _, optimizer = build(Net(), optim={"name": "sgd", "lr": 0.5, "momentum": 0.4})
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.4


def test_adafactor_takes_steps_of_the_learning_rate_as_adamw_does():
    moved = {}
    for name in ("adamw", "adafactor"):
        torch.manual_seed(0)
        model = Net()
        _, optimizer = build(model, optim={"name": name, "lr": 1e-3, "weight_decay": 0.0})
        before = model.first.weight.detach().clone()
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        moved[name] = (model.first.weight - before).square().mean().sqrt()
    # A first step of AdamW is the sign of the gradient; Adafactor's has a mean square of one.
    torch.testing.assert_close(moved["adafactor"], moved["adamw"], rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("name", "unread"),
    [
        ("adamw", {"momentum"}),
        ("sgd", {"state", "betas", "eps"}),
        ("adafactor", {"state", "betas", "eps", "momentum"}),
        ("muon", {"state"}),
    ],
)
def test_settings_of_another_optimizer_are_not_read(name, unread):
    made = make_settings(optim={"name": name})
    read = set()

    class Watched:
        def __getattr__(self, leaf):
            read.add(leaf.removeprefix("used_"))
            return getattr(made.optim, leaf)

    watched = make_settings()
    watched.optim = Watched()
    model = Net()
    optim.spec(watched, model, one_rank(), [model])
    assert read == set(type(made.optim).model_fields) - unread


def test_muon_takes_the_matrices_of_blocks_but_their_embeddings_and_adamw_the_rest():
    block = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 5), nn.Conv1d(5, 5, 3))
    model = nn.Sequential(block, nn.Linear(5, 2))
    spec = optim.spec(make_settings(optim={"name": "muon"}), model, one_rank(), [block])
    groups = {n: spec.options[spec.group_of(n, p)] for n, p in model.named_parameters()}
    assert [name for name, options in groups.items() if "momentum" in options] == ["0.1.weight"]
    decaying = [name for name, options in groups.items() if options["weight_decay"]]
    assert decaying == [name for name, p in model.named_parameters() if p.dim() > 1]


@pytest.mark.parametrize("factors", [{}, {"groups": {"1": 0.5}}])
def test_moments_of_few_bits_are_of_groups_without_small_parameters(factors):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 63), nn.LayerNorm(4096))
    is_small = {p: p.numel() < 4096 for p in model.parameters()}
    _, plain = build(model, optim=factors)
    _, low = build(model, optim={"state": "int8", **factors})
    for group in low.param_groups:
        assert {is_small[p] for p in group["params"]} == {group.get(KEEPS_FP32, False)}
    options = [
        {
            p: (g["weight_decay"], g.get(LR_FACTOR))
            for g in optimizer.param_groups
            for p in g["params"]
        }
        for optimizer in (plain, low)
    ]
    assert options[0] == options[1]
