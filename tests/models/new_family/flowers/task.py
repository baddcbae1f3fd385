"""The task of the family."""

import csv
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from gearshift.models.base import DataError, Goal, Prediction, Predictions
from gearshift.models.common.data_files import existing_path
from gearshift.models.common.family import FamilyTask
from gearshift.models.common.layers import HasFrozenParts
from gearshift.models.common.predictions import few_samples, placed
from gearshift.models.flowers.config import SIZES
from gearshift.models.flowers.formats import FORMATS

LENGTHS = ("a", "b", "c", "d")


class Network(HasFrozenParts):
    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.head = nn.Linear(width, 3)

    def forward(self, lengths):
        return self.head(self.encoder(lengths))


class FlowerTask(FamilyTask):
    goal = Goal("val_accuracy", "max")
    parts = {"encoder": ("encoder",)}  # noqa: RUF012
    noun = "plants"

    def read(self, path=None):
        with existing_path(path or self.data_settings.path, FORMATS[0]).open() as file:
            rows = list(csv.DictReader(file))
        if missing := {"plant", *LENGTHS} - set(rows[0]):
            raise DataError(f"no columns {missing}", where="data.path", allowed=FORMATS[0])
        return rows

    def groups_of(self, records):
        return [row["plant"] for row in records]

    def sample(self, number, given, draws):
        lengths = torch.tensor([float(self.records[given][name]) for name in LENGTHS])
        return {"lengths": lengths, "kind": int(self.records[number]["kind"])}

    def network(self):
        return Network(SIZES[self.model_settings.size].width)

    def measure(self, model, batch):
        logits, kind = model(batch["lengths"]), batch["kind"]
        loss = F.cross_entropy(logits, kind, reduction="sum")
        return {"loss": loss, "accuracy": (logits.argmax(1) == kind).sum()}

    def setup_without_data(self):
        self.encoder = None  # the initial weights are among the trained ones

    def predictions(self, model):
        batch = placed(self.collate(few_samples(self.data("val"), 4)), self.context.device)
        return Predictions(
            ("kind", "predicted"), list(zip(*self._kinds(model, batch), strict=True))
        )

    def _kinds(self, model, batch):
        return batch["kind"].tolist(), model(batch["lengths"]).argmax(1).tolist()

    def predict(self, model, path: Path):
        self.records = [{"kind": 0} | row for row in self.read(str(path))]
        samples = [self.sample(n, n, None) for n in range(len(self.records))]
        for number, kind in enumerate(
            self._kinds(model, placed(self.collate(samples), self.context.device))[1]
        ):
            yield Prediction(f"flower-{number}", f"flower {number}: kind {kind}")
