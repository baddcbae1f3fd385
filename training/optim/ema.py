"""The exponential moving average (EMA) of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from gearshift.engines.base import Engine, Piece, State
from gearshift.training.checkpoint.tensor_file import EMA, WEIGHT


class Ema:
    """Averages the trained weights, each rank those it holds. Collective: `in_place`.

    In fp32 where weights have 16 bits, which are too few for a small step of an average.

    After t updates the decay is min(`decay`, (1 + t) / (10 + t)), which soon forgets the first
    weights. Source: num_updates of TensorFlow's tf.train.ExponentialMovingAverage.
    """

    def __init__(self, engine: Engine, decay: float):
        self._decay = decay
        self._sources: list[tuple[int, Tensor]] = []
        self._weights: list[Tensor] = []
        self._averages: list[Tensor] = []
        self.pieces: list[Piece] = []
        """The average of the intervals that this rank holds; live tensors."""
        state = engine.state()
        trained = {name for group in state.groups for name in group["names"]}
        for piece in state.pieces:
            if piece.kind != WEIGHT or piece.name not in trained:
                continue
            weight = piece.data.detach()
            dtype = torch.promote_types(weight.dtype, torch.float32)
            average = weight.to(dtype, copy=True)
            if piece.source is not None:
                self._sources.append((len(self._weights), piece.source))
            self._weights.append(weight)
            self._averages.append(average)
            self.pieces.append(replace(piece, kind=EMA, data=average, source=None))

    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        if self._weights:
            self._follow()
            # No copies, but of weights of 16 bits.
            pairs = zip(self._weights, self._averages, strict=True)
            weights = [weight.to(average.dtype) for weight, average in pairs]
            torch._foreach_lerp_(self._averages, weights, 1 - decay)

    @contextmanager
    def in_place(self, engine: Engine) -> Iterator[None]:
        """Inside, the model has the average for its weights; afterwards its own, bit-equal.

        Holds a copy of the trained weights meanwhile: an evaluation has no gradients.
        """
        self._follow()
        before = [weight.clone() for weight in self._weights]
        self._write(self._averages, engine)
        try:
            yield
        finally:
            self._write(before, engine)

    def _follow(self) -> None:
        """Find the parameters to which a forward pass gave other memory."""
        for index, parameter in self._sources:
            if not parameter.is_contiguous():
                parameter.data = parameter.detach().contiguous()
            self._weights[index] = parameter.detach().view(-1)

    def _write(self, values: list[Tensor], engine: Engine) -> None:
        self._follow()
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)
        engine.refresh()

    def joined(self, state: State) -> State:
        return replace(state, pieces=[*state.pieces, *self.pieces])
