"""The same work for every contender: one model, one dataset, one optimizer, one schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gearshift.models.base import Context, Split
from gearshift.models.language.config import Data, Model
from gearshift.models.language.task import LanguageTask
from gearshift.training.data.samples import DataOrder
from gearshift.training.seeds import seed_weights

CLIP_NORM = 1.0
SEED = 0
EVAL_SHARE = 0.01
"""Small: Gearshift evaluates after the clock has stopped, and rounds should not wait for it."""


@dataclass(frozen=True)
class Seeded:
    """Randomness of a sample that depends on its index alone."""

    index: int

    def rng(self) -> np.random.Generator:
        """A generator that restarts at each call."""
        return np.random.default_rng((SEED, self.index))


class Samples(Dataset[Any]):
    """A Gearshift split as a PyTorch dataset."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Any:
        return self.split.sample(index, Seeded(index))


@dataclass(frozen=True)
class Work:
    """The work of one contender in one round: `steps` updates, each of one micro-batch per rank."""

    size: str
    micro_batch: int
    steps: int
    seq_len: int | None = None
    data: str = "embedded:python"
    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"
    compile: str = "off"
    backend: str = "inductor"
    """The compiler of hand-written training."""
    lr: float = 1e-3
    weight_decay: float = 0.01
    eval_share: float = EVAL_SHARE
    rank: int = 0
    world_size: int = 1

    @property
    def warmup(self) -> int:
        """Steps in which the learning rate rises; fewer than the steps of the run."""
        return min(10, self.steps // 2)

    @cached_property
    def task(self) -> LanguageTask:
        """The language family's task with its data loaded; nothing is saved to disk."""
        context = Context(SEED, self.eval_share, folder=None, device=torch.device(self.device))
        task = LanguageTask(
            Model(size=self.size), Data(path=self.data, seq_len=self.seq_len), context
        )
        task.setup()
        return task

    def model(self) -> torch.nn.Module:
        """A fresh model, the same weights each time, on the device."""
        seed_weights(SEED)
        return self.task.build().to(self.device)

    def blocks(self, model: torch.nn.Module) -> list[torch.nn.Module]:
        """The layers of `model`, which engines shard and compile one by one."""
        return self.task.blocks(model)

    def flops(self) -> float:
        """Floating point operations of a rank in one step; the model is built without memory."""
        with torch.device("meta"):
            per_sample = self.task.flops_per_sample(self.task.build())
        assert per_sample is not None
        return per_sample * self.micro_batch

    def groups(self, model: torch.nn.Module) -> list[dict[str, Any]]:
        """Parameters with two or more axes decay, the others do not."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        return [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """AdamW as Gearshift builds it: fused, two groups."""
        return self.adamw(self.groups(model))

    def adamw(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """AdamW for `groups` of parameters."""
        return torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """A linear warm-up, then a cosine to zero."""

        def share(step: int) -> float:
            if step < self.warmup:
                return (step + 1) / (self.warmup + 1)
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def loader(self) -> DataLoader[Any]:
        """Exactly `steps` batches of this rank: the samples that Gearshift's loop takes."""
        order = DataOrder(len(self.samples), self.micro_batch * self.world_size, SEED)
        batches = [
            batch
            for step in range(self.steps)
            for batch in order.share(step, self.rank, self.world_size, self.micro_batch)[1]
        ]
        return DataLoader(
            self.samples,
            batch_sampler=batches,
            collate_fn=self.task.collate,
            pin_memory=self.device != "cpu",
        )

    @cached_property
    def samples(self) -> Samples:
        """The training split."""
        return Samples(self.task.data("train"))

    def batches(self) -> Iterator[Mapping[str, Any]]:
        """The batches of `loader` on the device."""
        for batch in self.loader():
            yield {
                k: v.to(self.device, non_blocking=True) if isinstance(v, Tensor) else v
                for k, v in batch.items()
            }

    def loss(self, model: torch.nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch over its units."""
        found, weight = self.task.loss(model, batch).sum, self.task.num_units(batch)
        assert isinstance(found, Tensor) and isinstance(weight, int)
        return found / max(1, weight)

    def final_loss(self, model: torch.nn.Module) -> float:
        """The loss of a trained model on batches of its training; equal for equal work."""
        with torch.no_grad():
            losses = [float(self.loss(model, b)) for b in itertools.islice(self.batches(), 4)]
        return sum(losses) / len(losses)
