"""Plans of runs: against real steps, over engines and ranks."""

import gc
from dataclasses import replace

import pytest
import torch

from gearshift.engines.environment import RankInfo
from gearshift.engines.local import local
from gearshift.engines.world import ProcessWorld
from gearshift.launcher.config.adapt import engine_options
from gearshift.launcher.plan.plan import open_planner, plan_run
from gearshift.launcher.plan.step_trace import trace_step
from gearshift.launcher.plan.storages import Kind
from gearshift.launcher.plan.target import Described
from gearshift.models.abr import loss
from gearshift.models.language.config import SIZES
from gearshift.training.throughput import gpus
from tests.launcher.given import LAPTOP, ONE_GPU, resolved


def plan(*sets, world_size=None, machine=LAPTOP, **choice):
    run = resolved(*sets, world_size=world_size, machine=machine, **choice)
    return plan_run(run, Described(machine))


def peak(trace):
    """The most bytes at once, and the phase of that moment."""
    totals = trace.moments.held.sum(1)
    return totals.max(), trace.moments.phase[totals.argmax()]


def alone(options):
    return local(ProcessWorld(RankInfo(), torch.device("cpu"), 0.0), options)


OFFLOADED = ("memory.activation_offload=true", "compile=off", "precision=fp32")
LONG = {"model": "language:small", "machine": ONE_GPU, "engine": "local"}
LARGE = (*OFFLOADED, "train.micro_batch=8", "train.global_batch=8")


@pytest.mark.parametrize(
    ("sets", "choice"),
    [
        (("memory.activation_checkpointing=full", "train.ema=0.9"), {}),
        (("precision=bf16", "optim.name=adafactor"), {}),
        (LARGE, LONG),
        *(
            pytest.param(sets, choice, marks=pytest.mark.slow)
            for sets, choice in (
                ((*LARGE, "memory.activation_checkpointing=selective"), LONG),
                (
                    ("model.freeze_encoder=true",),
                    {"model": "eeg_text:tiny"},
                ),  # a pass computes its features
                *(
                    ((), {"model": f"{family}:tiny"})
                    for family in ("abr", "event_seg", "doc_translation")
                ),
            )
        ),
    ],
)
def test_a_fake_step_holds_what_a_real_one_holds(sets, choice):
    run = resolved(*sets, **choice)
    options = engine_options(run.settings, run, channels_last=False)
    with open_planner(run, Described(LAPTOP)) as planner:
        subject = planner.subject(run)
        fake, real = (
            trace_step(replace(subject, is_fake=is_fake), alone(options))
            for is_fake in (True, False)
        )
    (held, phase), (expected, its_phase) = peak(fake), peak(real)
    moves = choice is LONG  # without the host
    assert held == pytest.approx(expected, rel=0.03 if moves else 0.005)
    assert moves or phase == its_phase
    assert fake.offloaded == real.offloaded and (fake.offloaded > 0) == moves


def test_weights_gradients_and_optimizer_of_adamw():
    found = plan("train.micro_batch=1", "train.global_batch=8")
    weights = 4 * found.parameters
    assert found.device[Kind.WEIGHTS] == pytest.approx(weights, rel=0.01)  # and tables
    assert found.device[Kind.OPTIMIZER] == 2 * weights
    assert found.checkpoint_bytes == 4 * weights  # the best one has the weights twice
    assert found.trace.flops > 6 * found.parameters * 8 * 128


def test_offloaded_activations_leave_two_blocks_on_the_device_and_are_copied_twice():
    sets = (*OFFLOADED[1:], "train.micro_batch=8", "train.global_batch=16")
    run = resolved(*sets, **LONG)
    described = Described(replace(ONE_GPU, gpu_bytes=8 * 2**30), 1, gpus()["H200"])
    with open_planner(run, described) as planner:
        stays = planner.plan(run)
        moves = planner.plan(resolved(*sets, OFFLOADED[0], **LONG))
    blocks = SIZES["small"].layers
    less = moves.offloaded_bytes * (blocks - 2) / (blocks - 1)  # the last one is not moved
    assert (
        less / 2 < stays.device_bytes - moves.device_bytes < less
    )  # pinned sizes are powers of two
    assert stays.offloaded_bytes == stays.copied_bytes == 0 < moves.offloaded_bytes
    assert moves.rank_host_bytes - stays.rank_host_bytes == moves.offloaded_bytes
    assert moves.copied_bytes == 2 * 2 * moves.offloaded_bytes  # of two micro-batches
    assert moves.cost - stays.cost > moves.copied_bytes / 1e10
    assert "host link at 63 GB/s" in moves.seconds.basis
    assert moves.seconds.step == moves.copied_bytes / 63e9 > stays.seconds.step


def test_a_run_fits_or_not():
    on_cpu, on_gpu = plan(), plan(machine=ONE_GPU, engine="local")
    needs = on_cpu.host_bytes
    for planned, known, fits in (
        (on_cpu, {"ram_bytes": 2 * needs}, True),
        (on_cpu, {"ram_bytes": needs // 2}, False),
        (on_cpu, {"ram_bytes": None}, None),
        (on_gpu, {"device_bytes": None}, None),
        (on_gpu, {"device_bytes": 2**20}, False),
        (on_gpu, {"device_bytes": 2**34}, True),
    ):
        assert replace(planned, target=replace(planned.target, **known)).fits is fits, known


@pytest.mark.slow
def test_a_plan_leaves_no_fake_tensor_in_a_cache_that_a_training_would_read():
    gc.freeze()  # as a run does: the collector then knows none of the caches
    loss._on(torch.device("cpu"), (1.0,))
    plan_run(resolved(model="abr:tiny"), Described(LAPTOP))
    assert loss._on.cache_info().currsize == 0
