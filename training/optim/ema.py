"""A moving average of the weights, which evaluation may use in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from engines.base import Engine, Piece, State

KIND = "ema"
"""The kind of the average's pieces in a saved state."""


class Ema:
    """Averages the weights that train, each rank those it holds. Collective: `in_place`.

    After t updates the decay is min(`decay`, (1 + t) / (10 + t)), so that the first weights
    are soon forgotten. Source: num_updates of TensorFlow's tf.train.ExponentialMovingAverage.
    """

    def __init__(self, engine: Engine, decay: float):
        state = engine.state()
        trained = {name for group in state.groups for name in group["names"]}
        weights = [p for p in state.pieces if p.kind == "weight" and p.name in trained]
        self._decay = decay
        self._weights = [piece.data.detach() for piece in weights]
        self._averages = [weight.clone() for weight in self._weights]
        self._pieces = [
            replace(piece, kind=KIND, data=average)
            for piece, average in zip(weights, self._averages, strict=True)
        ]

    def update(self, step: int) -> None:
        """Take in the weights after `step` updates."""
        decay = min(self._decay, (1 + step) / (10 + step))
        if self._weights:
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @contextmanager
    def in_place(self, engine: Engine) -> Iterator[None]:
        """The model has the average for its weights; afterwards its own again, to the bit."""
        self._swap(engine)
        try:
            yield
        finally:
            self._swap(engine)

    @property
    def pieces(self) -> Sequence[Piece]:
        """The average, of each weight the interval that this rank holds; live."""
        return self._pieces

    def joined(self, state: State) -> State:
        """`state` and the average."""
        return replace(state, pieces=[*state.pieces, *self._pieces])

    def _swap(self, engine: Engine) -> None:
        _exchange(self._weights, self._averages)
        engine.refresh()


def _exchange(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        # One at a time: a copy of the largest tensor is all it takes.
        for one, other in zip(ours, theirs, strict=True):
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)
