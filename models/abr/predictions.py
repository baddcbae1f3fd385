"""What the model tells of a few responses, beside what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.abr.dataset import Portion, collate
from models.abr.pictures import compare, level_of
from models.abr.responses import CLASS_NAMES
from models.base import Picture, Predictions
from models.common.chosen import few, spread

SHOWN = 4
UNKNOWN = "–"
COLUMNS = (
    "response",
    "class",
    "class told",
    "probability",
    "threshold dB",
    "threshold told",
    "wave V ms",
    "wave V told",
    "error µV",
)


def predict(model: Module, portion: Portion, device: torch.device) -> Predictions:
    """Responses spread over a split. One forward pass, collective."""
    batch = collate(few(portion, SHOWN))
    told = model(batch["signal"].to(device), batch["static"].to(device))
    told = {term: x.float().cpu() for term, x in told.items()}
    rows, pictures = [], []
    for row, place in enumerate(spread(len(portion), SHOWN)):
        own = _Told({term: x[row] for term, x in told.items()}, portion, place)
        rows.append(own.row())
        pictures.append(own.picture(f"response_{row + 1}"))
    return Predictions(COLUMNS, rows, pictures)


class _Told:
    """What is known and what was told of one response."""

    def __init__(self, told: Mapping[str, Tensor], portion: Portion, place: int) -> None:
        self.responses, self.told = portion.responses, told
        self.known = int(portion.index[place])
        seen = int(portion.signal_of[place])
        self.wanted = np.asarray(self.responses.signal[seen], np.float32)
        self.signal = told["signal"][0].numpy() * np.float32(portion.statistics.signal_rms)
        self.name = f"{self.responses.patient[self.known]}, {level_of(self.responses, self.known)}"

    def row(self) -> tuple[str | float, ...]:
        """In the order of COLUMNS."""
        shares = self.told["class"].softmax(-1) if "class" in self.told else None
        target = int(self.responses.target[self.known])
        return (
            self.name,
            CLASS_NAMES[target] if target >= 0 else UNKNOWN,
            UNKNOWN if shares is None else CLASS_NAMES[int(shares.argmax())],
            UNKNOWN if shares is None else float(shares.max()),
            _shown(self._label("threshold")),
            _shown(self._said("threshold")),
            _shown(self._label("latency")),
            _shown(self._latency()),
            float(np.sqrt(np.square(self.signal - self.wanted).mean())),
        )

    def picture(self, name: str) -> Picture:
        """The response as it was recorded, and as it was told."""
        latencies = self._label("latency"), self._latency()
        window = self.responses.origin.window_ms
        caption = f"{self.name}: recorded (dark) and told (red), wave V marked"
        return Picture(name, caption, compare(self.wanted, self.signal, latencies, window))

    def _label(self, name: str) -> float:
        return float(self.responses.labels[name][self.known])

    def _said(self, name: str) -> float:
        return float(self.told[name]) if name in self.told else nan

    def _latency(self) -> float:
        """NaN where it is told that there is no wave V."""
        return nan if self._said("exists") < 0 else self._said("latency")


def _shown(value: float) -> str | float:
    return value if np.isfinite(value) else UNKNOWN
