"""Runs of the real training loop that count where the host waits for a tensor's values."""

import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engines.catalog import build_engine
from engines.environment import RankInfo
from engines.world import ProcessWorld
from launcher.config.engine_options import engine_options
from models.base import Context
from models.catalog import FAMILIES
from tests.launcher.given import ONE_GPU, resolved
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TinyTask, run_tiny
from training.callbacks.base import Action
from training.data.loader import Batches, EvaluationBatches
from training.data.order import DataOrder
from training.data.samples import Samples
from training.loop import train
from training.optim import optimizer
from training.run_state import TrainingRun
from training.train_plan import solve

DEVICE = torch.device("meta")
CPU = torch.device("cpu")
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
    """Counts reads of tensors on `device` by the code that caused them: "file:function".

    On DEVICE, tensors are fake: one left on the CPU cannot be mixed with them, a result of unknown
    shape fails, and a number that is read is 1. Copies to DEVICE count if the host waits for them.
    """

    def __init__(self, device):
        super().__init__()
        self.found = Counter()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(_is_on(self._device, leaf) for leaf in tree_leaves((args, kwargs))):
            return func(*args, **kwargs)
        if func in _READS or _is_awaited_copy(func, args, kwargs):
            self.note()
        if self._device == CPU:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        with self.fake:
            return func(*args, **kwargs)

    def note(self):
        """Count a read by the innermost frame that is neither torch's nor of this file."""
        frame = sys._getframe(1)
        while frame and (frame.f_code.co_filename == __file__ or _file(frame).startswith("torch/")):
            frame = frame.f_back
        assert frame is not None
        self.found[f"{_file(frame)}:{frame.f_code.co_name}"] += 1


class Conversions(TorchFunctionMode):
    """Tells `reads` of reads and copies that are no operations of the dispatcher."""

    def __init__(self, reads):
        super().__init__()
        self._reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        is_copy = func in (torch.tensor, torch.as_tensor) and result.device == DEVICE
        if func in (Tensor.tolist, Tensor.numpy) or (is_copy and not isinstance(args[0], Tensor)):
            self._reads.note()
        return result


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
        return Action.NOTHING


class Refusing(RecordingCallback):
    """Lets a read of a GPU in the counted steps raise RuntimeError, where it is."""

    reads: ClassVar = {}

    def step(self, step):
        if step.step in (FIRST, LAST):
            torch.cuda.set_sync_debug_mode("error" if step.step == FIRST else "default")
        return Action.NOTHING


@contextmanager
def counted(device, kind=Reads):
    """Inside, reads of tensors on `device` are counted."""
    reads = kind(device)
    with reads, Conversions(reads), _like_an_accelerator():
        yield Counting(reads)


def of_a_family(folder, family, *sets, task=None, accumulation=1, device=DEVICE, kind=Reads):
    """Reads in a step of a family's tiny model, or of `task`, as a GPU takes it by default.

    Under the engine local. On DEVICE they are counted by `kind`; nothing is compiled there.
    """
    world = ProcessWorld(RankInfo(), device, 60.0)
    sets = (*sets, "loader.workers=0", "log.every=100", "eval.last=false", "save.last=false")
    sets = (*sets, f"train.max_steps={LAST}", f"compile={'off' if device == DEVICE else 'auto'}")
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
        global_batch=accumulation * micro_batch,
        micro_batch=micro_batch,
        world_size=1,
        units=task.units,
        first_step=1,  # neither logged nor previewed, as the first one would be
    )
    model = task.build()
    with counted(device, kind) if device == DEVICE else refused() as counting:
        if device == DEVICE:
            move(model, counting._reads.fake)
        options = engine_options(settings, run, task.channels_last)
        engine = build_engine("local", world, options)
        module = engine.prepare(model, optimizer.spec(settings, model, world), task.blocks(model))
        order = DataOrder(len(split), train_plan.global_batch, 0)
        batches = Batches(Samples(task, split, 0), order, train_plan, world, settings.loader)
        validation = EvaluationBatches(
            Samples(task, task.data("val"), 0), micro_batch, world, settings.loader
        )
        run = TrainingRun(settings, train_plan, [counting], validation, Shelf(), {})
        run.finish = lambda: None
        train(task, engine, module, batches, run)
        engine.close()
    return counting.reads


@contextmanager
def refused():
    """Inside, a callback refuses reads of a GPU; after an error they are allowed again."""
    try:
        yield Refusing()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def of_an_engine(world, engine):
    """Reads in a step of a small model; the CPU is its device. Collective."""
    with counted(CPU) as counting:
        task = TinyTask(dtype=torch.float32)
        changes = {"train": {"epochs": 2}, "log": {"every": 100}}
        changes |= {"eval": {"every": None}, "save": {"every": None}}
        run_tiny(world, task, counting, engine=engine, **changes)
    reads = counting.reads.items()
    return {where: count for where, count in reads if not where.startswith("tests/")}


def move(model, fake):
    """Replace parameters and buffers by fake ones on DEVICE; tied ones stay tied."""
    moved = {}

    def onto(tensor):
        if tensor not in moved:
            with fake:
                found = fake.from_tensor(tensor.detach()).to(DEVICE)
            is_parameter = isinstance(tensor, nn.Parameter)
            moved[tensor] = nn.Parameter(found, tensor.requires_grad) if is_parameter else found
        return moved[tensor]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors.update({k: onto(x) for k, x in tensors.items() if x is not None})


@contextmanager
def _like_an_accelerator():
    """Let DEVICE have a generator, and autocast that changes nothing."""
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    def context(device, *args, **kwargs):
        return nullcontext() if device == DEVICE.type else autocast(device, *args, **kwargs)

    def enabled(*args):
        return args != (DEVICE.type,) and is_enabled(*args)

    generator = SimpleNamespace(manual_seed=lambda number: None)
    with (
        patch.object(torch, DEVICE.type, generator, create=True),
        patch.object(torch, "autocast", context),
        patch.object(torch, "is_autocast_enabled", enabled),
    ):
        yield


def _is_on(device, value):
    if isinstance(value, Tensor):
        return value.device == device
    return isinstance(value, torch.device) and value == device


def _is_awaited_copy(func, args, kwargs):
    """Whether the host waits until values have moved between it and DEVICE."""
    if func is aten._to_copy.default:
        source, target = args[0].device, kwargs.get("device") or args[0].device
        return source != target and not (target == DEVICE and kwargs.get("non_blocking"))
    if func is aten.copy_.default:
        is_blocking = len(args) < 3 or not args[2]
        return args[0].device != args[1].device and (args[0].device == CPU or is_blocking)
    return False


def _file(frame):
    """Below the repository, or below the folder of packages."""
    path = frame.f_code.co_filename
    return path.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
