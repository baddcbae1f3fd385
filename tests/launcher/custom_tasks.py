"""Custom tasks as small files in folders of their own."""

from itertools import count
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
"""The folder of `images:Images`."""
_numbers = count()

HEAD = """\
import torch
from pydantic import BaseModel
from torch import nn
from gearshift import CustomTask

"""
BODY = """\
    def samples(self, split):
        return [(torch.full((2,), float(i)), float(i % 2)) for i in range(8)]

    def build(self):
        return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))

    def measure(self, model, batch):
        error = model(batch["input"]).squeeze(1) - batch["target"].float()
        return {"loss": error.square().sum()}
"""
LINE = """\
class Line(CustomTask):
    defaults = {"train.epochs": 2, "train": {"micro_batch": 4}}

    class Model(BaseModel):
        width: int = 4

"""
"""A class without its methods; `HEAD + LINE + BODY` is a whole file, its class on line 6."""


def write(folder, text, name=None):
    """Write a module into `folder`; its name, which no other module of this process has."""
    module = name or f"mine_{next(_numbers)}"
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    return module
