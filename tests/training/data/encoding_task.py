"""A small task with a frozen encoder and known numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.base import World
from engines.catalog import build_engine
from models.base import Loss
from tests.engines.parity import Case, options
from tests.training.tiny import TinyTask, make_settings
from training.data.feature_cache import CacheLocation, use
from training.optim import optimizer
from training.settings import FeatureCache

WIDTH = 4


class Net(nn.Module):
    """An encoder that counts its passes, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))
        self.encoder.requires_grad_(False)
        self.head = nn.Linear(WIDTH, 1)
        self.passes = 0

    def forward(self, x: Tensor | None, memory: Tensor | None = None, only: bool = False) -> Tensor:
        if memory is None:
            self.passes += 1
            memory = self.encoder(x)
        return memory if only else self.head(memory)


class Inputs:
    """Rows of numbers, one a sample."""

    def __init__(self, count: int, seed: int) -> None:
        self.made_from = {"seed": seed}
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def row(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).normal(size=WIDTH).astype(np.float32)

    def batch(self, numbers: Sequence[int]) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(np.stack([self.row(n) for n in numbers]))}


class Split:
    """Samples of an input each."""

    def __init__(self, inputs: Inputs, features: Any) -> None:
        self.inputs, self.features = inputs, features

    def __len__(self) -> int:
        return len(self.inputs)

    def sample(self, index: int, draws: Any) -> dict[str, np.ndarray]:
        if self.features is None:
            return {"x": self.inputs.row(index)}
        return {"memory": self.features[index]["memory"]}


class EncodingTask(TinyTask):
    """See models/base.py: HasFrozenEncoder."""

    def __init__(
        self, seed: int = 0, varying_inputs: str | None = None, frozen: bool = True
    ) -> None:
        super().__init__()
        self.seed, self.why, self.frozen = seed, varying_inputs, frozen
        self.features: dict[str, Any] = {}

    def build(self) -> Net:
        return Net()

    def data(self, split: str) -> Split:
        return Split(self.encoder_inputs(split), self.features.get(split))

    def encoder_inputs(self, split: str) -> Inputs:
        return Inputs({"train": 21, "val": 5}[split], self.seed + (split == "val"))

    def collate(self, samples: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Loss:
        return Loss(model(batch.get("x"), batch.get("memory")).sum(), {})

    def frozen_encoder(self, model: nn.Module) -> str | None:
        return "encoder" if self.frozen else None

    def varying_inputs(self) -> str | None:
        return self.why

    def encode(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"memory": model(batch["x"], only=True)}

    def use_features(self, features: dict[str, Any]) -> None:
        self.features = features


def encoded(
    world: World,
    folder: Path,
    task: EncodingTask | None = None,
    engine: str = "local",
    weights: int = 0,
    elsewhere: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Messages, number of encoder passes, and the samples of both splits."""
    task = task or EncodingTask()
    torch.manual_seed(weights)
    model = task.build()
    made = build_engine(engine, world, options(Case(engine), world))
    module = made.prepare(model, optimizer.spec(make_settings(), model, world), [model.encoder])
    module.train()
    messages: list[str] = []
    try:
        location = CacheLocation(folder, {"precision": "fp32"})
        does = use(
            task,
            model,
            module,
            made,
            FeatureCache(folder=elsewhere, **settings),
            location,
            messages.append,
        )
        assert module.training and not any(p.requires_grad for p in model.encoder.parameters())
    finally:
        made.close()
    rows = {
        split: [task.data(split).sample(i, None) for i in range(len(task.data(split)))]
        for split in ("train", "val")
    }
    model.encoder.eval()
    return {"does": does, "messages": messages, "passes": model.passes, "rows": rows}
