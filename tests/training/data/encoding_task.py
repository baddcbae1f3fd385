"""A small task with a frozen encoder and known numbers."""

import numpy as np
import torch
from torch import nn

from gearshift.engines.catalog import build_engine
from gearshift.models.base import Loss
from gearshift.training.data.feature_cache import use
from gearshift.training.optim import optimizer
from gearshift.training.settings import FeatureCache
from tests.engines.parity import Case, options
from tests.training.tiny import TinyTask, make_settings

WIDTH = 4


class Net(nn.Module):
    """An encoder that counts its passes, and a head."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))
        self.encoder.requires_grad_(False)
        self.head = nn.Linear(WIDTH, 1)
        self.passes = 0

    def forward(self, x, memory=None, only=False):
        if memory is None:
            self.passes += 1
            memory = self.encoder(x)
        return memory if only else self.head(memory)


class Inputs:
    """Rows of numbers, one a sample."""

    def __init__(self, count, seed):
        self.made_from, self.count, self.seed = {"seed": seed}, count, seed

    def __len__(self):
        return self.count

    def row(self, number):
        return np.random.default_rng([self.seed, number]).normal(size=WIDTH).astype(np.float32)

    def batch(self, numbers):
        return {"x": torch.from_numpy(np.stack([self.row(n) for n in numbers]))}


class Split:
    """Samples of an input each."""

    def __init__(self, inputs, features):
        self.inputs, self.features = inputs, features

    def __len__(self):
        return len(self.inputs)

    def sample(self, index, draws):
        if self.features is None:
            return {"x": self.inputs.row(index)}
        return {"memory": self.features[index]["memory"]}


class EncodingTask(TinyTask):
    """See models/base.py: HasFrozenEncoder."""

    def __init__(self, seed=0, varying_inputs=None, frozen=True):
        super().__init__()
        self.seed, self.why, self.frozen = seed, varying_inputs, frozen
        self.features = {}

    def build(self):
        return Net()

    def data(self, split):
        return Split(self.encoder_inputs(split), self.features.get(split))

    def encoder_inputs(self, split):
        return Inputs({"train": 21, "val": 5}[split], self.seed + (split == "val"))

    def collate(self, samples):
        return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}

    def loss(self, model, batch):
        return Loss(model(batch.get("x"), batch.get("memory")).sum(), {})

    def frozen_encoder(self, model):
        return "encoder" if self.frozen else None

    def varying_inputs(self):
        return self.why

    def encode(self, model, batch):
        return {"memory": model(batch["x"], only=True)}

    def use_features(self, features):
        self.features = features


def encoded(world, folder, task=None, engine="local", weights=0, elsewhere=None, **settings):
    """Messages, number of encoder passes, and the samples of both splits."""
    task = task or EncodingTask()
    torch.manual_seed(weights)
    model = task.build()
    made = build_engine(engine, world, options(Case(engine), world))
    module = made.prepare(model, optimizer.spec(make_settings(), model, world), [model.encoder])
    module.train()
    messages = []
    try:
        cache = FeatureCache(folder=elsewhere, **settings)
        does = use(task, model, module, made, cache, folder, {"precision": "fp32"}, messages.append)
        assert module.training and not any(p.requires_grad for p in model.encoder.parameters())
    finally:
        made.close()
    rows = {
        split: [task.data(split).sample(i, None) for i in range(len(task.data(split)))]
        for split in ("train", "val")
    }
    model.encoder.eval()
    return {"does": does, "messages": messages, "passes": model.passes, "rows": rows}
