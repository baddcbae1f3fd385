"""Plans of compiled steps: what fused kernels keep, and plans where the compiler fails."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._inductor.graph import GraphLowering
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import isolated
from benchmarks.plan_error import Case, measure
from launcher.plan import advice, compiled, render
from launcher.plan.compiled import without_kernels
from launcher.plan.plan import plan_run
from launcher.plan.storages import Storages
from launcher.plan.target import Described
from tests.launcher.given import LAPTOP, resolved

KIB = 1024
TOLERANCE = 0.02
"""Of the benchmark's 5 %: what tiny models of this family have without compiling as well."""


def plan(*sets, **choice):
    return plan_run(resolved(*sets, **choice), Described(LAPTOP))


class Layer(nn.Module):
    """Doubles."""

    def forward(self, x):
        return x + x


def held_after(x, compiles):
    """Bytes that a chain of functions keeps for its backward pass, with its result."""

    def chain(x):
        for _ in range(4):
            x = x.sin()
        return x

    storages = Storages()
    function = torch.compile(chain) if compiles else chain
    with storages:
        kept = function(x)
    moment = list(storages.moments())[-1]
    del kept
    return moment.total


def test_a_fused_chain_keeps_its_input_and_its_result_only():
    with without_kernels() as programs, FakeTensorMode():
        x = torch.empty(KIB, requires_grad=True)
        result = 4 * KIB
        assert held_after(x, compiles=False) == 4 * result
        assert programs.count == 0
        assert held_after(x, compiles=True) == result
        assert programs.count == 1


def test_a_buffer_is_given_back_within_a_program():
    def products(x, weight):  # of two axes: x and each result are seen through a view
        return x @ weight @ weight @ weight

    storages = Storages()
    with without_kernels(), FakeTensorMode(), storages:
        x, weight = torch.empty(1, KIB, KIB), torch.empty(KIB, KIB)
        torch.compile(products)(x, weight)
    # The two of them, and a product with the one before.
    assert max(moment.total for moment in storages.moments()) == 4 * 4 * KIB**2


def test_a_compiled_plan_needs_less_and_computes_the_same():
    on, off = (plan(f"compile={each}") for each in ("on", "off"))
    assert on.uncompiled is None and on.as_json()["uncompiled"] is None
    assert on.device_bytes < 0.9 * off.device_bytes
    assert on.flops == off.flops
    assert {kind: on.device[kind] for kind in list(on.device)[:3]} == {
        kind: off.device[kind] for kind in list(off.device)[:3]
    }  # weights, gradients and optimizer


def test_recomputed_blocks_are_compiled_as_well():
    full = "memory.activation_checkpointing=full"
    on, off = (plan(f"compile={each}", full) for each in ("on", "off"))
    assert on.uncompiled is None
    assert on.device_bytes < off.device_bytes
    assert on.flops == off.flops > plan("compile=off").flops


def test_stage_3_of_zero_is_not_compiled():
    on, off = (plan(f"compile={each}", engine="zero3", world_size=2) for each in ("on", "off"))
    assert on.device == off.device and on.uncompiled is None


def is_restored():
    return GraphLowering.compile_to_module.__module__ == GraphLowering.__module__


def test_where_the_compiler_fails_the_plan_is_that_of_an_eager_step(monkeypatch):
    def codegen(graph):
        raise TypeError("another version\nof the compiler")

    monkeypatch.setattr(GraphLowering, "codegen", codegen)
    run = resolved("compile=on")
    found = plan("compile=on")
    assert found.uncompiled.startswith(f"torch {torch.__version__}: ")
    assert found.uncompiled.endswith("TypeError: another version")
    assert found.device == plan("compile=off").device
    assert found.as_json()["uncompiled"] == found.uncompiled
    lines = render.text(run, found, [], str).splitlines()
    assert any(line.startswith("basis ") and "another version" in line for line in lines)
    assert is_restored()


def test_where_torch_has_another_compiler_the_plan_is_that_of_an_eager_step(monkeypatch):
    monkeypatch.delattr(GraphLowering, "compile_to_module")
    found = plan("compile=on")
    assert "compile_to_module" in found.uncompiled
    assert found.device == plan("compile=off").device


def test_programs_that_take_too_long_are_left_out(monkeypatch):
    monkeypatch.setattr(compiled, "LIMIT_S", 0.0)
    assert "longer than 0 s" in plan("compile=on").uncompiled


def test_nothing_of_a_plan_reaches_a_later_training():
    with without_kernels(), FakeTensorMode():
        torch.compile(Layer())(torch.empty(1, 2))
    assert is_restored()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    layer = Layer()
    layer.compile(backend=backend)
    assert layer(torch.ones(2)).tolist() == [2.0, 2.0]
    assert len(graphs) == 1
    torch._dynamo.reset()


def test_advice_plans_few_compiled_steps():
    steps = [[f"train.micro_batch={n}"] for n in (16, 8, 4, 2, 1)]
    planned = []

    def plan_with(sets, least):
        size = int(sets[0].partition("=")[2])
        is_compiled = "compile=off" not in sets
        planned.append(size) if is_compiled else None
        return SimpleNamespace(fits=size <= (2 * least if is_compiled else least))

    def first(least):
        planned.clear()
        with_least = lambda sets: plan_with(sets, least)  # noqa: E731
        found = advice._first_fit(advice._close_to_fit(steps, with_least), with_least)
        return found and found.sets

    assert first(4) == ["train.micro_batch=8"] and planned == [8]
    assert first(16) == ["train.micro_batch=16"] and planned == [16]
    assert first(0.5) == ["train.micro_batch=1"] and planned == [2, 1]
    assert first(0.1) is None and planned == [2, 1]


@pytest.mark.slow  # the training compiles with a C++ compiler
@pytest.mark.parametrize("sets", [(), ("memory.activation_checkpointing=full",)])
def test_a_compiled_training_holds_what_is_planned(sets):
    isolated.preload(["torch._dynamo", "launcher.run.worker"])
    row = measure(Case("language", "local", sets=("compile=on", *sets)), LAPTOP)
    assert row is not None, sys.stderr
    assert abs(row.error) < TOLERANCE
