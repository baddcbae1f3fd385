"""Steps are traced without a GPU: none is asked, whatever the optimizer and the engine."""

from contextlib import nullcontext

import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.plan import step_trace
from gearshift.launcher.plan.plan import plan_run
from gearshift.launcher.plan.storages import Storages
from gearshift.launcher.plan.target import Described
from tests.launcher.given import ONE_GPU, ROOT, SERVER, python, resolved
from tests.simulated_cuda import simulated_cuda

OPTIMIZERS = {
    "adamw": ("local", "fsdp", "zero2-offload"),
    "muon": ("ddp", "fsdp"),
    "adafactor": ("oss",),
}
SMALL = ("data.seq_len=16", "train.global_batch=1", "train.micro_batch=1")
SETS = ("memory.activation_checkpointing=selective", "train.global_batch=8", "train.micro_batch=2")


@pytest.mark.parametrize(
    "name",
    ["adamw", *(pytest.param(name, marks=pytest.mark.slow) for name in ("muon", "adafactor"))],
)
def test_a_plan_asks_no_gpu(name):
    for engine in OPTIMIZERS[name]:
        sets = (*SETS, f"optim.name={name}")
        machine = SERVER if ENGINES[engine].processes is None else None
        choice = {} if machine is None else {"machine": machine}
        run = resolved(*sets, engine=engine, **choice)
        with simulated_cuda() as calls:
            found = plan_run(run, Described(SERVER))
        assert calls == {}, engine
        assert found.engine == engine


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_neither_does_engine_auto_a_dry_run_nor_advice(said):
    tiny = ("--model", "language:tiny", "--engine")
    with simulated_cuda() as calls:
        assert "engine auto: ddp: " in said(*tiny, "auto", "--nproc", "2", "--dry-run")
        advice = said("plan", *tiny, "local", "--gpus", "1", "--gpu-memory", "520MiB")
    assert calls == {} and "activation_checkpointing=full" in advice


def test_engine_auto_plans_in_a_fork_that_sees_no_gpu():
    """Backward passes on a CPU count the GPUs, too, where Python cannot hide them."""
    program = (
        "import os; from gearshift.launcher.plan import auto;"
        "name = 'CUDA_VISIBLE_DEVICES';"
        "print(repr(auto._in_child(lambda: os.environ[name])), os.environ[name])"
    )
    done = python("-c", program, folder=ROOT, env={"CUDA_VISIBLE_DEVICES": "0"})
    assert done.stdout == "'' 0\n", done.stderr


@pytest.mark.parametrize("state", ["int8", "bf16"])
def test_equal_parameters_are_planned_as_if_each_were_traced(state, monkeypatch):
    run = resolved("model.size=tiny", f"optim.state={state}", *SMALL, engine="local")
    once = plan_run(run, Described(SERVER))
    monkeypatch.setattr(step_trace, "equal_updates_once", lambda _: nullcontext())
    each = plan_run(run, Described(SERVER))
    assert once.device == each.device and once.trace.launches == each.trace.launches


@pytest.mark.parametrize("kept", ["none", "full", "every 2"])
def test_equal_blocks_are_planned_as_if_each_were_traced(kept, monkeypatch):
    sets = (f"memory.activation_checkpointing={kept}", "precision=bf16", "compile=off")
    run = resolved(*sets, model="language:small", engine="local", machine=ONE_GPU)
    repeat = Storages.repeat
    repeats = []

    def counted(storages, start, end):
        repeats.append(end.changes - start.changes)
        repeat(storages, start, end)

    monkeypatch.setattr(Storages, "repeat", counted)
    once = plan_run(run, Described(ONE_GPU))
    assert (len(repeats) > 0) == (kept != "every 2")  # neighbours differ
    monkeypatch.setattr(step_trace, "EqualBlocks", lambda *_: None)
    each = plan_run(run, Described(ONE_GPU))
    assert once.device == each.device
    assert once.trace.flops == each.trace.flops
    assert once.trace.launches == each.trace.launches
    assert once.trace.moments.phase.tolist() == each.trace.moments.phase.tolist()
    assert once.trace.moments.computed.max() == each.trace.moments.computed.max()
