"""Digits drawn by numpy at random positions with noise, classified by a small CNN."""

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from gearshift import CustomTask, Goal

GLYPHS = ["75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717"]
SHAPES = np.array([[[int(row) >> 2 - x & 1 for x in range(3)] for row in g] for g in GLYPHS])
SIDE = 16


class Images(CustomTask):
    """Which of ten digits an image shows."""

    goal = Goal("val_accuracy", "max")
    defaults = {"train.epochs": 8, "optim.lr": 1e-2}
    sizes = {"small": {"model.width": 16}, "large": {"model.width": 32}}

    class Model(BaseModel):
        """Of the network."""

        width: int = 16

    class Data(BaseModel):
        """Of what is drawn."""

        samples: int = 1600
        noise: float = 0.3

    def samples(self, split):
        count = self.data_settings.samples // {"train": 1, "val": 4, "test": 4}[split]
        rng = np.random.default_rng([self.context.seed, *split.encode()])
        digits = rng.integers(len(SHAPES), size=count)
        images = rng.normal(0, self.data_settings.noise, (count, SIDE, SIDE))
        large = SHAPES[digits].repeat(2, axis=1).repeat(2, axis=2)  # [count, 10, 6]
        y, x = (rng.integers(SIDE - n + 1, size=(count, 1, 1)) for n in large.shape[1:])
        rows, columns = np.arange(10)[:, None], np.arange(6)
        images[np.arange(count)[:, None, None], y + rows, x + columns] += large
        return TensorDataset(torch.from_numpy(images).float()[:, None], torch.from_numpy(digits))

    def build(self):
        width = self.model_settings.width
        first = (nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        second = (nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(2 * width * 16, 10))

    def measure(self, model, batch):
        logits = model(batch["input"])  # [batch, 10]
        loss = functional.cross_entropy(logits, batch["target"], reduction="sum")
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch["target"]).sum()}
