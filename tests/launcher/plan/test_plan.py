"""Plans of runs: against real steps, over engines and ranks."""

import gc
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from engines.environment import RankInfo
from engines.local import local
from engines.world import ProcessWorld
from launcher.config.engine_options import engine_options
from launcher.config.machine import CONTEXT_BYTES
from launcher.plan.plan import HEAP, open_planner, plan_run
from launcher.plan.render import text
from launcher.plan.step_trace import trace_step
from launcher.plan.storages import Kind
from launcher.plan.subject import read_task
from launcher.plan.target import Described
from models.abr import loss
from models.language.config import SIZES
from tests.launcher.given import LAPTOP, ONE_GPU, SERVER, resolved
from training.throughput import gpus

MATRICES = 2 * (4 * 64 * 64 + 3 * 64 * 192)
"""Elements in the blocks of language:tiny."""


def plan(*sets, world_size=None, machine=LAPTOP, device_bytes=None, **choice):
    run = resolved(*sets, world_size=world_size, machine=machine, **choice)
    return plan_run(run, Described(machine, device_bytes=device_bytes))


def peak(trace):
    """The most bytes at once, and the phase of that moment."""
    totals = trace.moments.held.sum(1)
    return totals.max(), trace.moments.phase[totals.argmax()]


def alone(options):
    return local(ProcessWorld(RankInfo(), torch.device("cpu"), 0.0), options)


@pytest.mark.parametrize(
    ("family", "sets"),
    [
        ("language", ("memory.activation_checkpointing=full", "train.ema=0.9")),
        ("language", ("precision=bf16", "optim.name=adafactor")),
        ("eeg_text", ("model.freeze_encoder=true",)),  # with the pass that computes its features
        *(
            pytest.param(family, (), marks=pytest.mark.slow)
            for family in ("abr", "event_seg", "doc_translation")
        ),
    ],
)
def test_a_fake_step_holds_what_a_real_one_holds(family, sets):
    run = resolved(*sets, model=f"{family}:tiny")
    options = engine_options(run.settings, run, channels_last=False)
    peaks = []
    with read_task(run) as data:
        subject = data.subject(run)
        for is_fake in (True, False):
            peaks.append(peak(trace_step(replace(subject, is_fake=is_fake), alone(options))))
    assert peaks[0] == (pytest.approx(peaks[1][0], rel=0.005), peaks[1][1])


def test_a_step_that_reads_cached_features_does_not_compute_them():
    def planned(*sets):
        return plan("model.freeze_encoder=true", *sets, model="eeg_text:tiny")

    computed, read = planned("feature_cache.mode=off"), planned()
    assert read.flops < computed.flops / 2
    too_large = planned("feature_cache.limit_gb=1e-6")
    assert (too_large.flops, too_large.device) == (computed.flops, computed.device)


def test_weights_gradients_and_optimizer_of_adamw():
    found = plan("train.micro_batch=1", "train.global_batch=8")
    weights = 4 * found.parameters
    assert found.device[Kind.WEIGHTS] == pytest.approx(weights, rel=0.01)  # and tables
    assert found.device[Kind.OPTIMIZER] == 2 * weights
    assert found.checkpoint_bytes == 4 * weights  # the best one has the weights twice
    assert found.flops > 6 * found.parameters * 8 * 128


def test_smaller_micro_batches_and_recomputation_need_less_and_compiled_runs_no_more():
    sizes = [plan("train.global_batch=8", f"train.micro_batch={n}").device_bytes for n in (8, 4, 1)]
    assert sizes == sorted(sizes, reverse=True)
    full, none = (
        plan(f"compile={compile}", f"memory.activation_checkpointing={recomputed}")
        for compile, recomputed in (("on", "full"), ("off", "none"))
    )
    assert full.device[Kind.ACTIVATIONS] < 0.7 * none.device[Kind.ACTIVATIONS]
    assert none.uncompiled is None and "an upper bound" in full.uncompiled


@pytest.mark.parametrize("engine", ["fsdp", "zero3", "zero2-offload"])
def test_engines_on_many_ranks(engine):
    few, many = (
        plan("train.micro_batch=1", f"train.global_batch={n}", engine=engine, world_size=n) for n in (2, 64)
    )
    assert not dist.is_initialized()
    kept = (Kind.WEIGHTS, Kind.GRADIENTS, Kind.OPTIMIZER)
    whole, part = (sum(each.device[kind] for kind in kept) for each in (few, many))
    if engine.endswith("-offload"):
        assert part == whole  # zero3 keeps weights as small as these gathered
    else:
        assert part < whole - few.parameters  # of at least a quarter of one fp32 copy
    assert many.sent_bytes > few.sent_bytes > 0


OFFLOADED = ("memory.activation_offload=true", "compile=off", "precision=fp32")
LONG = {"model": "language:small", "machine": ONE_GPU, "engine": "local"}


@pytest.mark.parametrize("recomputed", ["none", "selective"])
def test_a_fake_step_with_offload_holds_what_a_real_one_holds_without_the_host(recomputed):
    sets = (f"memory.activation_checkpointing={recomputed}", "train.micro_batch=8")
    run = resolved(*OFFLOADED, *sets, "train.global_batch=8", **LONG)
    options = engine_options(run.settings, run, channels_last=False)
    with read_task(run) as data:
        subject = data.subject(run)
        fake, real = (
            trace_step(replace(subject, is_fake=is_fake), alone(options)) for is_fake in (True, False)
        )
    assert peak(fake)[0] == pytest.approx(peak(real)[0], rel=0.03)
    assert fake.offloaded == real.offloaded > 0


def test_offloaded_activations_leave_two_blocks_on_the_device_and_are_copied_twice():
    sets = (*OFFLOADED[1:], "train.micro_batch=8", "train.global_batch=16")
    run = resolved(*sets, **LONG)
    described = Described(ONE_GPU, 1, 8 * 2**30, gpus()["H200"])
    with open_planner(run, described) as planner:
        stays = planner.plan(run)
        moves = planner.plan(resolved(*sets, OFFLOADED[0], **LONG))
    blocks = SIZES["small"].layers
    less = moves.offloaded_bytes * (blocks - 2) / (blocks - 1)  # the last one is not moved
    assert stays.device_bytes - moves.device_bytes == pytest.approx(less, rel=0.03)
    assert stays.offloaded_bytes == stays.copied_bytes == 0 < moves.offloaded_bytes
    assert moves.rank_host_bytes - stays.rank_host_bytes == moves.offloaded_bytes
    assert moves.copied_bytes == 2 * 2 * moves.offloaded_bytes  # of two micro-batches
    assert moves.cost - stays.cost > moves.copied_bytes / 1e10
    assert "host link at 63 GB/s" in moves.seconds.basis
    assert moves.seconds.step == moves.copied_bytes / 63e9 > stays.seconds.step


def test_fsdp_frees_the_weights_that_it_shards():
    found = plan(engine="fsdp", world_size=2)
    assert 0 < found.device[Kind.COMMUNICATION] < 4 * found.parameters  # a block, not all
    assert found.device[Kind.WEIGHTS] == pytest.approx(4 * found.parameters / 2, rel=0.01)


def test_batches_of_all_micro_batches_are_held_and_with_ranks_those_of_the_next_step():
    sets = ("train.micro_batch=1", "train.global_batch=8")
    one, two = (
        plan(*sets, model="event_seg:tiny", engine=engine, world_size=ranks)
        for engine, ranks in (("local", 1), ("ddp", 2))
    )
    # 8 micro-batches each: of one step of one rank, of two steps of two.
    assert two.device[Kind.ACTIVATIONS] == pytest.approx(one.device[Kind.ACTIVATIONS], rel=0.01)
    few = plan("train.micro_batch=1", "train.global_batch=2", model="event_seg:tiny")
    assert one.device[Kind.ACTIVATIONS] > 2 * few.device[Kind.ACTIVATIONS]


def test_ranks_divide_the_work_of_muon_and_send_its_steps():
    sent, operations = {}, {}
    for ranks in (1, 2):
        adamw, muon = (
            plan(f"optim.name={name}", "train.global_batch=8", engine="fsdp", world_size=ranks)
            for name in ("adamw", "muon")
        )
        sent[ranks] = muon.sent_bytes - adamw.sent_bytes
        operations[ranks] = muon.flops - adamw.flops
    # In bf16, half of them; shards go to the rank that orthogonalizes them and back.
    assert sent == {1: 0, 2: 2 * MATRICES / 2}
    assert operations[2] == operations[1] / 2


def test_hybrid_sharding_shards_within_a_node():
    sets = ("train.global_batch=64", "precision=bf16")
    machine = replace(SERVER, gpus=4)
    described = Described(machine, nodes=2)
    sizes = []
    for extra in ((), ("engine.hybrid_shard=true",)):
        run = resolved("compile=off", *sets, *extra, engine="fsdp", machine=machine, world_size=8)
        sizes.append(plan_run(run, described).device[Kind.OPTIMIZER])
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)


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


def test_the_limit_of_a_gpu_is_what_tensors_may_take():
    found = plan(machine=replace(ONE_GPU, gpu_bytes=6 * 2**30), engine="local")
    limit = 6 * 2**30 - CONTEXT_BYTES
    for needed, fits in ((limit, True), (limit + 1, False)):
        exact = replace(found, device={Kind.ACTIVATIONS: needed})
        assert (exact.fits, exact.needs) == (fits, "5.5 GiB of 5.5 GiB")
        printed = text(resolved(machine=ONE_GPU, engine="local"), exact, [], lambda sets: "")
        leave = " that other processes, the CUDA context and NCCL leave"
        assert printed.endswith("fits: 5.5 GiB of 5.5 GiB" if fits else leave)


def test_all_micro_batches_after_the_first_are_alike():
    run = resolved("compile=off", "train.global_batch=4", "train.micro_batch=1", model="language:tiny")
    options = engine_options(run.settings, run, channels_last=False)
    with read_task(run) as data:
        traced, repeated = (
            trace_step(data.subject(run), alone(options), repeats=repeats) for repeats in (False, True)
        )
    assert peak(repeated) == (pytest.approx(peak(traced)[0], rel=1e-4), peak(traced)[1])
    assert repeated.flops == traced.flops
    # Caches of functions keep no tensor without values.
    assert type(loss._on(torch.device("cpu"), (1.0,))) is torch.Tensor


def test_a_heap_has_holes_unless_freed_memory_returns():
    run = resolved("compile=off")
    with open_planner(run, Described(LAPTOP)) as planner:
        holes = planner.plan(run)
        none = planner.plan(resolved("compile=off", "memory.return_freed=true"))
    assert holes.device == none.device
    state = none.device[Kind.WEIGHTS] + none.device[Kind.OPTIMIZER]
    assert holes.host_bytes - none.host_bytes == round(HEAP * (none.device_bytes - state))


def test_forked_workers_keep_a_copy_of_the_weights_on_the_host(monkeypatch):
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0))  # otherwise it grows
    monkeypatch.setattr("launcher.plan.plan.psutil.Process", lambda: process)

    def added(**choice):
        none, two = (plan(f"loader.workers={n}", "loader.prefetch=1", **choice) for n in (0, 2))
        return two.host_bytes - none.host_bytes, none.device

    more, held = added()
    on_gpu, _ = added(machine=ONE_GPU, engine="local")
    assert more - on_gpu == held[Kind.WEIGHTS]
    assert 0 < on_gpu < 2**20  # the batches they load ahead


def test_a_plan_leaves_no_fake_tensor_in_a_cache_that_a_training_would_read():
    gc.freeze()  # as a run does: the collector then knows none of the caches
    loss._on(torch.device("cpu"), (1.0,))
    plan_run(resolved(model="abr:tiny"), Described(LAPTOP))
    assert loss._on.cache_info().currsize == 0
