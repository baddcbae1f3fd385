"""Blocks are compiled alone, and few graphs serve training and evaluation."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from engines.catalog import build_engine
from engines.world import open_world
from models.base import Context
from models.language.config import Data, Model
from models.language.task import LanguageTask
from tests.engines.parity import Case, options, spec

MOST_GRAPHS = 3 + 2
"""Of one kind of block: training, evaluation, and training with another size. Of the head: one
size, and another."""


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch):
    """Graphs as they are, without code generation."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def task():
    context = Context(0, 0.1, None, torch.device("cpu"))
    task = LanguageTask(Model(size="tiny"), Data(path="embedded:python", seq_len=64), context)
    task.setup()
    return task


@pytest.fixture
def compiled(task):
    world = open_world("cpu", 5.0, always_group=False)
    model = task.build()
    engine = build_engine("local", world, options(Case("local", compile=True), world))
    yield engine, engine.prepare(model, spec(None, 1e-3), task.blocks(model))
    engine.close()
    world.close()


def use(task, compiled, batch, is_training):
    engine, module = compiled
    module.train(is_training)
    with torch.set_grad_enabled(is_training):
        loss = task.loss(module, batch).sum
        if is_training:
            with engine.accumulate(True):
                engine.backward(loss)
            engine.step()


def batch_of(task, count):
    samples = task.data("train")
    return task.collate([samples.sample(number, None) for number in range(count)])


def test_training_evaluation_and_a_smaller_micro_batch_share_few_graphs(task, compiled):
    for count, is_training in ((8, True), (8, False), (8, True), (4, True), (8, False), (2, True)):
        use(task, compiled, batch_of(task, count), is_training)
    assert 0 < counters["stats"]["unique_graphs"] <= MOST_GRAPHS
