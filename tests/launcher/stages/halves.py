"""A task in stages that trains in a moment, as a small file."""

from tests.launcher.custom_tasks import write

TEXT = """\
import time
from collections import OrderedDict
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import nn

from gearshift import CustomTask, InitialWeights, Stage


class Halves(CustomTask):
    defaults = {"train": {"micro_batch": 4, "epochs": 4}, "log.every": 1, "eval.every": 4}
    stages = (
        Stage("lower", "train the lower half"),
        Stage("upper", "train the upper half", loads="model.start", of=("lower",)),
        Stage("both", "both learn", loads="model.start", of=("lower", "upper"), optional=True),
    )
    stage_settings = {
        "lower": {"model": {"part": "alone"}},
        "upper": {"model.frozen": True, "optim": {"lr": 1e-2}},
        "both": {"optim.lr": 1e-4},
    }

    class Model(BaseModel):
        part: str = "whole"
        frozen: bool = False
        width: int = 4
        start: str | None = None
        slow_s: float = 0

    def samples(self, split):
        return [(torch.full((2,), float(i)) / 8, float(i % 2)) for i in range(8)]

    def build(self):
        settings = self.model_settings
        self.slow_s = settings.slow_s
        width = settings.width
        head = nn.Linear(width, 1 if settings.part == "alone" else 2)
        model = nn.Sequential(OrderedDict(lower=nn.Linear(2, width), head=head))
        if settings.start is not None:
            opener = self.context.open_checkpoint
            stored = InitialWeights(Path(settings.start), "model.start", opener)
            for name, tensor in model.lower.state_dict().items():
                stored.read_into(f"lower.{name}", tensor)
            model.lower.requires_grad_(not settings.frozen)
        return model

    def measure(self, model, batch):
        time.sleep(self.slow_s)
        error = model(batch["input"]).mean(1) - batch["target"].float()
        return {"loss": error.square().sum()}
"""


def halves(folder):
    """Writes the task; its name `module:Halves`, unique in this process."""
    return f"{write(folder, TEXT)}:Halves"
