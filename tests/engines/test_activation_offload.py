"""Activations that are moved to the host come back unchanged, in time, and leave the device."""

import ctypes
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from gearshift.engines import activation_offload
from gearshift.engines.activation_offload import ActivationOffload, Moved
from gearshift.engines.base import Options
from gearshift.engines.preparation import change_forward
from tests.devices import each_device, pool
from tests.engines.parity import Case, Net, distance, train
from tests.engines.test_parity import able

CPU = torch.device("cpu")
WAYS = {
    "alone": {},
    "full": {"activation_checkpointing": 1},
    "selective": {"activation_checkpointing": 1, "keep_products": True},
    "every 2": {"activation_checkpointing": 2},
    "bf16": {"precision": "bf16"},
    "compiled": {"compile": True},
}


class LateCopies:
    """Copies that are made as late as they may: when something waits for one of them."""

    def __init__(self):
        self._queue = []
        self.device = []
        """What is, or was, on the device: a reference, and its bytes."""
        self.out, self.peak = [], 0
        """Bytes of each copy to the host; the most on the device."""

    @property
    def held(self):
        """Bytes on the device now, without those of the last block."""
        return sum(size for origin, size in self.device if not origin.expired())

    def copied(self, moved, source, to_host):
        target = torch.empty_like(source).fill_(255)
        on_device = source if to_host else target
        self.device.append((StorageWeakRef(on_device.untyped_storage()), on_device.numel()))
        self.peak = max(self.peak, self.held)
        self.out += [source.numel()] * to_host
        ends = [
            (each.data_ptr(), StorageWeakRef(each.untyped_storage())) for each in (target, source)
        ]
        moved._event = (ends, source.numel())
        self._queue.append(moved._event)
        return target

    def wait(self, moved):
        while any(copy is moved._event for copy in self._queue):
            ends, size = self._queue.pop(0)
            assert not any(origin.expired() for _, origin in ends), "freed before it was copied"
            ctypes.memmove(ends[0][0], ends[1][0], size)


@pytest.fixture
def copies(monkeypatch):
    """The simulated stream; every tensor is large enough."""
    late = LateCopies()
    monkeypatch.setattr(activation_offload, "SMALLEST", 64)
    monkeypatch.setattr(
        Moved, "copied", lambda moved, source, to_host: late.copied(moved, source, to_host)
    )
    monkeypatch.setattr(Moved, "wait", lambda moved: late.wait(moved))
    monkeypatch.setattr(Moved, "__del__", lambda moved: late.wait(moved))
    return late


def passes(**options):
    """Losses and gradients of two micro-batches."""
    torch.manual_seed(0)
    net = Net()
    change_forward(net, list(net.blocks), Options(**options), CPU)
    losses = []
    for start in (0, 5):
        loss = net((torch.arange(24).view(2, 12) + start) % 37).square().sum()
        loss.backward()
        losses.append(loss.detach())
    return [*losses, *(p.grad for p in net.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", [*[*WAYS][:-1], pytest.param("compiled", marks=pytest.mark.slow)])
def test_losses_and_gradients_are_those_without_it(copies, name):
    torch._dynamo.reset()
    plain = passes(**WAYS[name])
    moved = passes(**WAYS[name], activation_offload=True)
    assert all(torch.equal(one, other) for one, other in zip(plain, moved, strict=True))
    assert copies.device and copies.held == 0


class Layer(nn.Sequential):
    """Two layers, and the gradients that have reached it."""

    def __init__(self, reached):
        super().__init__(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.reached = reached

    def forward(self, x):
        y = x + super().forward(x)
        if y.requires_grad:
            y.register_hook(lambda _: self.reached())
        return y


def test_the_device_holds_two_blocks_and_the_next_one_arrives_while_one_computes(copies):
    loaded = []
    layers = nn.Sequential(*(Layer(lambda: loaded.append(len(copies.device))) for _ in range(6)))
    ActivationOffload(layers, list(layers), CPU).wrap()
    result = layers(torch.randn(40, 32))
    one = 40 * 4 * (32 + 64 + 64)  # the inputs of both products and of GELU
    assert copies.out == [one // 5, 2 * one // 5, 2 * one // 5] * 5
    assert copies.held == 0  # the last one is the only one on the device
    assert copies.peak <= 2 * one + one // 5  # the stream of the model belongs to two blocks
    copies.peak, moved = 0, len(copies.device)
    result.sum().backward()
    assert one <= copies.peak <= 2 * one + one // 5
    # When the gradient reaches a block, that block is there, and no other one.
    assert [count - moved for count in loaded] == [0, 3, 6, 9, 12, 15]
    assert copies.held == 0


def test_copies_of_weights_in_16_bits_stay(copies):
    layers = nn.Sequential(*(Layer(lambda: None) for _ in range(3)))
    options = Options(precision="bf16", activation_offload=True)
    change_forward(layers, list(layers), options, CPU)
    layers(torch.randn(40, 32)).sum().backward()
    # The inputs of both products, and of GELU.
    assert sorted(copies.out) == [40 * 32 * 2] * 2 + [40 * 64 * 2] * 4


@pytest.mark.parametrize(("smallest", "expected"), [(64, 5), (2**20, 0)])
def test_weights_are_listed_once_a_call_and_only_for_large_tensors(
    copies, monkeypatch, smallest, expected
):
    monkeypatch.setattr(activation_offload, "SMALLEST", smallest)
    lists = []
    modules = nn.Module.modules
    monkeypatch.setattr(Layer, "modules", lambda layer: lists.append(layer) or modules(layer))
    layers = nn.Sequential(*(Layer(lambda: None) for _ in range(6)))
    offload = ActivationOffload(layers, list(layers), CPU)
    offload.wrap()
    lists.clear()
    layers(torch.randn(40, 32))
    assert lists == list(layers)[:expected]  # the last block moves nothing


class Changed(nn.Module):
    def forward(self, x):
        return x.exp().add_(1)  # whose backward pass needs its result


def test_a_saved_tensor_that_is_changed_is_an_error(copies):
    layers = nn.Sequential(Changed(), Changed(), Changed())
    ActivationOffload(layers, list(layers), CPU).wrap()
    with pytest.raises(RuntimeError):
        layers(torch.zeros(32, requires_grad=True))


def trained(world, case):
    """The outcome of `case`, and the bytes of the tensors of blocks that went to the host."""
    sizes = []
    copied = Moved.copied

    def noted(moved, source, to_host):
        sizes.append(source.numel() * to_host)
        return copied(moved, source, to_host)

    with patch.object(activation_offload, "SMALLEST", 64), patch.object(Moved, "copied", noted):
        return train(world, case), sum(sizes)


@each_device
@pytest.mark.parametrize("recomputes", [0, pytest.param(1, marks=pytest.mark.slow)])
@able("local", "ddp", "fsdp", "zero1", "zero2-offload", "zero3")
def test_engines_train_to_the_same_state(request, device, engine, recomputes):
    ranks = pool(request, device, 2 if device == "cpu" else 1)
    case = Case(engine, steps=2, activation_checkpointing=recomputes)
    plain = [outcome for outcome, _ in ranks.run(trained, case)]
    found = ranks.run(trained, Case(**{**vars(case), "activation_offload": True}))
    assert max(distance([outcome for outcome, _ in found], plain).values()) == 0.0
    # 2 steps of 12 sequences of 12 tokens, 2 of 3 blocks: their inputs alone, if recomputed.
    inputs = 2 * 2 * 12 * 12 * 16 * 4 // len(found)
    for _, moved in found:
        assert moved == inputs if recomputes else 16 * inputs < moved < 17 * inputs
