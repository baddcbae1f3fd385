"""Methods that save and load the same state: Gearshift, a plain copy, torch, DCP, DeepSpeed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from benchmarks.raw_engines import import_deepspeed
from benchmarks.workload import Work
from gearshift.engines.base import Engine, OptimizerSpec, Options
from gearshift.engines.catalog import build_engine
from gearshift.engines.environment import RankInfo
from gearshift.engines.world import ProcessWorld
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import restore
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.storage import Storage


class Way(Protocol):
    """A method that saves a trained state to a folder of its own and loads it."""

    def save(self, step: int) -> None:
        """Save; training waits until this returns."""

    def settle(self) -> None:
        """Wait until the save is on disk."""

    def load(self) -> None:
        """Load the last save into the live tensors."""


class Ours:
    """Gearshift's saver and reader around engine `local`; reading checks every byte."""

    def __init__(self, work: Work, folder: Path, in_background: bool) -> None:
        world = ProcessWorld(RankInfo(), torch.device("cpu"), 600.0)
        self.engine = _local(work, world)
        self.folder = folder
        self.saver = CheckpointWriter(
            Storage(folder), world, "local", Keep(1, 1, None), in_background
        )

    def save(self, step: int) -> None:
        self.saver.save(step, self.engine.state(), {"samples": step}, True, None)

    def settle(self) -> None:
        self.saver.wait()

    def load(self) -> None:
        restore(open_checkpoint(self.folder / "last", verify=False), self.engine)


class Copy:
    """A plain copy of the state: the minimum before training can continue."""

    def __init__(self, work: Work, folder: Path, is_kept: bool) -> None:
        world = ProcessWorld(RankInfo(), torch.device("cpu"), 600.0)
        self.tensors = [piece.data for piece in _local(work, world).state().pieces]
        self.is_kept = is_kept
        self.copies: list[torch.Tensor] = []

    def save(self, step: int) -> None:
        if self.copies:
            for copy, tensor in zip(self.copies, self.tensors, strict=True):
                copy.copy_(tensor)
        else:
            self.copies = [tensor.clone() for tensor in self.tensors]

    def settle(self) -> None:
        if not self.is_kept:
            self.copies = []

    def load(self) -> None:
        for copy, tensor in zip(self.copies, self.tensors, strict=False):
            tensor.copy_(copy)


class Pickled:
    """torch.save of both state dicts; torch.load and load_state_dict."""

    def __init__(self, work: Work, folder: Path, is_mapped: bool) -> None:
        self.model, self.optimizer = _plain(work)
        self.path = folder / "state.pt"
        self.is_mapped = is_mapped

    def save(self, step: int) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.path)

    def settle(self) -> None:
        pass

    def load(self) -> None:
        state = torch.load(self.path, weights_only=True, mmap=self.is_mapped)
        self.model.load_state_dict(state["model"])
        # load_state_dict of an optimizer keeps the loaded tensors: mapped ones would stay
        # backed by files. Copy into the existing ones, as a model does.
        ours = self.optimizer.state_dict()["state"]
        for number, slots in state["optimizer"]["state"].items():
            for name, tensor in slots.items():
                ours[number][name].copy_(tensor)


class Distributed:
    """torch.distributed.checkpoint of both state dicts, in the foreground or in the background."""

    def __init__(self, work: Work, folder: Path, is_async: bool) -> None:
        _join(folder)
        self.model, self.optimizer = _plain(work)
        self.folder = folder
        self.is_async = is_async
        self.future: Any = None

    def save(self, step: int) -> None:
        import torch.distributed.checkpoint as dcp

        shutil.rmtree(self._path, ignore_errors=True)
        if self.is_async:
            self.future = dcp.async_save(self._state(), checkpoint_id=self._path)
        else:
            dcp.save(self._state(), checkpoint_id=self._path)

    def settle(self) -> None:
        if self.future is not None:
            self.future.result()
            self.future = None

    def load(self) -> None:
        import torch.distributed.checkpoint as dcp

        dcp.load(self._state(), checkpoint_id=self._path)

    @property
    def _path(self) -> Path:
        return self.folder / "distributed"

    def _state(self) -> dict[str, Any]:
        """Live tensors, by name."""
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


class DeepSpeed:
    """save_checkpoint and load_checkpoint of a DeepSpeed engine."""

    def __init__(self, work: Work, folder: Path, stage: int) -> None:
        deepspeed = import_deepspeed("cpu")
        _join(folder)
        deepspeed.init_distributed("gloo", verbose=False)
        model = work.model()
        self.engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=work.optimizer(model),
            config={
                "train_micro_batch_size_per_gpu": work.micro_batch,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": stage},
            },
        )
        for batch in work.batches():
            self.engine.backward(work.loss(self.engine, batch))
            self.engine.step()
        self.folder = folder

    def save(self, step: int) -> None:
        self.engine.save_checkpoint(str(self.folder), tag="saved")

    def settle(self) -> None:
        pass

    def load(self) -> None:
        self.engine.load_checkpoint(str(self.folder), tag="saved")


def _join(folder: Path) -> None:
    """A world of one process with a file as rendezvous."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)


def _plain(work: Work) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model and its optimizer after one step."""
    model = work.model()
    optimizer = work.optimizer(model)
    _give_gradients(model)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def _give_gradients(model: torch.nn.Module) -> None:
    """Random gradients, with which the optimizer creates its state."""
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)


def _local(work: Work, world: ProcessWorld) -> Engine:
    """Engine `local` around the same model and optimizer, after the same step."""
    plain = work.model()
    decayed = {id(p) for p in work.groups(plain)[0]["params"]}
    spec = OptimizerSpec(
        options=[{"weight_decay": work.weight_decay}, {"weight_decay": 0.0}],
        group_of=lambda name, parameter: int(id(parameter) not in decayed),
        build=_adamw(work),
        clip_norm=None,
    )
    engine = build_engine("local", world, Options())
    engine.prepare(plain, spec, work.task.blocks(plain))
    _give_gradients(plain)
    engine.step()
    return engine


def _adamw(work: Work) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
    return lambda groups: torch.optim.AdamW(
        groups, lr=work.lr, betas=(0.9, 0.95), eps=1e-8, fused=True
    )


WAYS: dict[str, Callable[[Work, Path], Way]] = {
    "plain copy": lambda work, folder: Copy(work, folder, is_kept=False),
    "copy into kept memory": lambda work, folder: Copy(work, folder, is_kept=True),
    "ours, background": lambda work, folder: Ours(work, folder, in_background=True),
    "ours, foreground": lambda work, folder: Ours(work, folder, in_background=False),
    "torch.save": lambda work, folder: Pickled(work, folder, is_mapped=False),
    "torch.save, mapped load": lambda work, folder: Pickled(work, folder, is_mapped=True),
    "DCP save": lambda work, folder: Distributed(work, folder, is_async=False),
    "DCP async_save": lambda work, folder: Distributed(work, folder, is_async=True),
    "DeepSpeed stage 1": lambda work, folder: DeepSpeed(work, folder, stage=1),
    "DeepSpeed stage 2": lambda work, folder: DeepSpeed(work, folder, stage=2),
}
COPIES: Sequence[str] = ("plain copy", "copy into kept memory")
"""A method without loading."""
