"""Runs of the real training loop that count where the host waits for a tensor's values."""

import sys
from collections import Counter
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engines.catalog import build_engine
from engines.environment import RankInfo
from engines.world import ProcessWorld
from launcher.config.engine_options import engine_options
from models.base import Context
from models.catalog import FAMILIES
from tests.launcher.given import ONE_GPU, resolved
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TinyTask, run_tiny
from training.data.loader import Batches, EvaluationBatches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.loop import train
from training.optim import optimizer
from training.run_state import TrainingRun
from training.train_plan import solve

FIRST, LAST = 2, 3
"""Counted from the end of one to the end of the other; a run logs its first step, not these."""
ROOT = Path(__file__).parents[2]
aten = torch.ops.aten
_READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.repeat_interleave.Tensor,
    aten._linalg_check_errors.default,
}
"""Operations that compute a number or a size for the host."""


class Reads(TorchDispatchMode):
    """Counts reads of tensors by the code that caused them: "file:function"."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in _READS:
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self):
        """Count a read by the innermost frame that is neither torch's nor of this file."""
        frame = sys._getframe(1)
        while frame and (frame.f_code.co_filename == __file__ or _file(frame).startswith("torch/")):
            frame = frame.f_back
        assert frame is not None
        self.found[f"{_file(frame)}:{frame.f_code.co_name}"] += 1


class Conversions(TorchFunctionMode):
    """Tells `reads` of reads that are no operations of the dispatcher."""

    def __init__(self, reads):
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (Tensor.tolist, Tensor.numpy):
            self._reads.note()
        return func(*args, **(kwargs or {}))


class Counting(RecordingCallback):
    """Keeps the reads of the counted steps."""

    def __init__(self, reads):
        super().__init__()
        self._reads = reads

    def step(self, step):
        if step.step == FIRST:
            self._reads.found.clear()
        if step.step == LAST:
            self.reads = dict(self._reads.found)


class Refusing(RecordingCallback):
    """Lets a read of a GPU in the counted steps raise RuntimeError, where it is."""

    def step(self, step):
        if step.step in (FIRST, LAST):
            torch.cuda.set_sync_debug_mode("error" if step.step == FIRST else "default")


def of_a_family(folder, family, *sets, task=None, device):
    """Take a step of a family's tiny model, or of `task`, as a GPU takes it by default.

    Under the engine local. A read of the GPU raises RuntimeError.
    """
    world = ProcessWorld(RankInfo(), device, 60.0)
    sets = (*sets, "loader.workers=0", "log.every=100", "eval.last=false", "save.last=false")
    sets = (*sets, f"train.max_steps={LAST}", "compile=auto")
    run = resolved(*sets, model=f"{family}:tiny", machine=ONE_GPU)
    settings = run.settings
    if task is None:
        module, _, name = FAMILIES[family].task.partition(":")
        context = Context(0, settings.eval.share, folder, device)
        task = getattr(import_module(module), name)(settings.model, settings.data, context)
    task.setup()
    split, micro_batch = task.data("train"), 2
    train_plan = solve(
        settings,
        samples=len(split),
        global_batch=micro_batch,
        micro_batch=micro_batch,
        world_size=1,
        units=task.units,
        first_step=1,  # neither logged nor previewed, as the first one would be
    )
    model = task.build()
    with refused() as refusing:
        options = engine_options(settings, run, task.channels_last)
        engine = build_engine("local", world, options)
        module = engine.prepare(model, optimizer.spec(settings, model, world), task.blocks(model))
        order = DataOrder(len(split), train_plan.global_batch, 0)
        batches = Batches(Samples(task, split, 0), order, train_plan, world, settings.loader)
        validation = EvaluationBatches(
            Samples(task, task.data("val"), 0), micro_batch, world, settings.loader
        )
        run = TrainingRun(settings, train_plan, [refusing], validation, Shelf(), {})
        run.finish = lambda: None
        train(task, engine, module, batches, run)
        engine.close()


@contextmanager
def refused():
    """Inside, a callback refuses reads of a GPU; after an error they are allowed again."""
    try:
        yield Refusing()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def of_an_engine(world, engine):
    """Reads in a step of a small model; the CPU is its device. Collective."""
    reads = Reads()
    with reads, Conversions(reads):
        task, counting = TinyTask(dtype=torch.float32), Counting(reads)
        changes = {"train": {"epochs": 2}, "log": {"every": 100}}
        changes |= {"eval": {"every": None}, "save": {"every": None}}
        run_tiny(world, task, counting, engine=engine, **changes)
    found = counting.reads.items()
    return {where: count for where, count in found if not where.startswith("tests/")}


def _file(frame):
    """Below the repository, or below the folder of packages."""
    path = frame.f_code.co_filename
    return path.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
