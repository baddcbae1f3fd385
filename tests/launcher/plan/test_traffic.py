"""The bytes that a rank sends in a step, as counted in processes that train."""

from contextlib import closing

import pytest
import torch
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gearshift.engines.catalog import ENGINES, build_engine
from gearshift.launcher.config.adapt import engine_options
from gearshift.launcher.plan.plan import open_planner, plan_run
from gearshift.launcher.plan.target import Described
from gearshift.training.accumulate import accumulate, total_units
from gearshift.training.optim import optimizer
from gearshift.training.optim.updater import Updater
from tests.engines.pool import Pool
from tests.launcher.given import LAPTOP, resolved

MICRO_BATCHES = 3
SETS = ("compile=off", "train.micro_batch=1")
SHARED = [name for name in ENGINES if name != "local"]
STEPS = 3  # DDP wraps the model after the first one, DeepSpeed prefetches after the second


def run_of(engine, ranks, *sets):
    sets = (*SETS, f"train.global_batch={ranks * MICRO_BATCHES}", *sets)
    return resolved(*sets, engine=engine, world_size=ranks, machine=LAPTOP)


class Counter(TorchDispatchMode):
    """Counts the bytes that the collectives of this rank send, with ring algorithms."""

    def __init__(self):
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        if func.namespace == "c10d":
            groups = [a for a in args if isinstance(a, torch.ScriptObject)]
            ranks = ProcessGroup.unbox(groups[0]).size()
            rounds = 2 if "allreduce" in func.__name__ else 1
            whole = max(sum(t.nbytes for t in tensors(arg)) for arg in args)
            self.sent += rounds * whole * (ranks - 1) / ranks
        return result


def tensors(arg):
    return [leaf for leaf in tree_leaves(arg) if isinstance(leaf, torch.Tensor)]


def counted(world, engine, sets):
    """The bytes that this rank sends in the last of a few steps."""
    run = run_of(engine, world.size, *sets)
    options = engine_options(run.settings, run, channels_last=False)
    with open_planner(run, Described(LAPTOP)) as planner:
        subject = planner.subject(run)
        task, plan = subject.task, subject.train_plan
        model = task.build()
        blocks = task.blocks(model)
        engine = build_engine(engine, world, options)
        spec = optimizer.spec(run.settings, model, world, blocks, task)
        module = engine.prepare(model, spec, blocks)
        updater = Updater(run.settings, plan)
        updater.start(engine)
        batches = [subject.micro_batch] * plan.accumulation
        for step in range(STEPS):
            with Counter() as counter:
                updater.prepare(task, engine, step)
                units = total_units([batch.num_units for batch in batches])
                done = accumulate(task, engine, module, batches, units)
                updater.take(engine, done, step + 1)
        engine.close()
        return counter.sent


@pytest.mark.slow
def test_bytes_per_step_are_those_that_processes_send(tmp_path):
    ranks = 3
    pytest.importorskip("deepspeed")
    pytest.importorskip("fairscale")
    small = tmp_path / "small.json"
    small.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 1000}}')
    one = tmp_path / "one.json"
    one.write_text('{"zero_optimization": {"use_multi_rank_bucket_allreduce": false}}')
    cases = [(engine, ()) for engine in SHARED]
    cases += [("zero3", (f"engine.ds_config={small}",)), ("zero2", (f"engine.ds_config={one}",))]
    cases += [("fsdp", ("optim.name=muon",)), ("ddp", ("optim.name=muon",))]
    with closing(Pool(ranks)) as pool:
        for engine, sets in cases:
            by_rank = pool.run(counted, engine, sets)
            expected = plan_run(run_of(engine, ranks, *sets), Described(LAPTOP)).placed.sent_bytes
            assert sum(by_rank) / ranks == pytest.approx(expected, rel=1e-3), (engine, sets)
