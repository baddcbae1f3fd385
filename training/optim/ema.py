"""The exponential moving average (EMA) of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gearshift.training.checkpoint.tensor_file import EMA, WEIGHT

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.engines.base import Engine, Piece, State


class Ema:
    """Averages the trained weights, each rank those it holds. Collective: `in_place`.

    In fp32 where weights have 16 bits, which are too few for a small step of an average.

    After t updates the decay is min(`decay`, (1 + t) / (10 + t)), which soon forgets the first
    weights. Source: num_updates of TensorFlow's tf.train.ExponentialMovingAverage.
    """

    def __init__(self, engine: Engine, decay: float):
        self._decay = decay
        self._weights: list[Tensor] = []
        self._averages: list[Tensor] = []
        self._narrow: list[tuple[Tensor, Tensor]] = []  # Weights of 16 bits, and their averages
        self.pieces: list[Piece] = []
        """The average of the intervals that this rank holds; live tensors."""
        state = engine.state()
        trained = {name for group in state.groups for name in group["names"]}
        for piece in state.pieces:
            if piece.kind != WEIGHT or piece.name not in trained:
                continue
            weight = piece.data.detach()
            if weight.dtype in (torch.bfloat16, torch.float16):
                average = weight.float()
                self._narrow.append((weight, average))
            else:
                average = weight.clone()
                self._weights.append(weight)
                self._averages.append(average)
            self.pieces.append(replace(piece, kind=EMA, data=average))

    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        if self._weights:
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for weight, average in self._narrow:
            average.lerp_(weight.float(), 1 - decay)

    @contextmanager
    def in_place(self, engine: Engine) -> Iterator[None]:
        """Inside, the model has the average for its weights; afterwards its own, bit-equal."""
        before = [weight.clone() for weight, _ in self._narrow]
        self._swap()
        for weight, average in self._narrow:
            weight.copy_(average)
        engine.refresh()
        try:
            yield
        finally:
            self._swap()
            for (weight, _), value in zip(self._narrow, before, strict=True):
                weight.copy_(value)
            engine.refresh()

    def joined(self, state: State) -> State:
        return replace(state, pieces=[*state.pieces, *self.pieces])

    def _swap(self) -> None:
        with torch.no_grad():
            # Tensor by tensor: needs a copy of the largest one only.
            for weight, average in zip(self._weights, self._averages, strict=True):
                saved = weight.clone()
                weight.copy_(average)
                average.copy_(saved)
