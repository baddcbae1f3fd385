"""The text of a task to start from: it learns as it is, and says where one's own begins."""

from __future__ import annotations

from string import Template

_TEXT = Template('''\
"""$name: which points of a square lie on a ring. Put your own data and network in its place."""

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from models.custom import CustomTask


class $name(CustomTask):
    """Knows no engine, process or precision: those are chosen where it is run."""

    # Any settings that a run of it should begin with.
    defaults = {"train.epochs": 10, "optim.lr": 1e-2}

    class Model(BaseModel):
        """Settings of the network, such as  --set model.width=64"""

        width: int = 32

    class Data(BaseModel):
        """Settings of the data, such as  --set data.count=5000"""

        count: int = 2000

    def samples(self, split):
        """Of train, val and test: anything with a length and an index."""
        rng = np.random.default_rng([self.context.seed, *split.encode()])
        points = rng.uniform(-1, 1, (self.data_settings.count, 2))
        on_ring = abs(np.hypot(*points.T) - 0.6) < 0.25
        return TensorDataset(torch.from_numpy(points).float(), torch.from_numpy(on_ring).long())

    def build(self):
        """The network, made of plain modules."""
        width = self.model_settings.width
        first = nn.Sequential(nn.Linear(2, width), nn.ReLU())
        second = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        return nn.Sequential(first, second, nn.Linear(width, 2))

    def measure(self, model, batch):
        """The loss, and what else is to be known, each summed over the samples of a batch."""
        logits = model(batch["input"])  # [batch, 2]
        loss = functional.cross_entropy(logits, batch["target"], reduction="sum")
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch["target"]).sum()}
''')


def text(class_name: str) -> str:
    """The file of a task whose class is called `class_name`."""
    return _TEXT.substitute(name=class_name)
