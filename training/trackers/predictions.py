"""Sample predictions for trackers: made on all ranks, and rendered as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.nn import Module

from training.callbacks.base import Action
from training.interruption import Interrupted
from training.trackers.base import failure_of

if TYPE_CHECKING:
    from models.base import HasPredictions, Predictions
    from training.interruption import Interruption

OTHER_RANK = "another rank could not make them"
MISSING = "–"
"""The cell of a value that is unknown."""
_FAILED = 1 << 15
"""A rank could not make its predictions; above the bits of Action."""
_PLAIN = frozenset(" ,;:.'\"/?=%@")


def predict_on_all_ranks(
    task: HasPredictions, module: Module, interruption: Interruption
) -> tuple[Predictions | None, str]:
    """The predictions of `task` on every rank; or None on every rank, and the error.

    Collective. Raises Interrupted. `module` is in evaluation mode meanwhile, and in training mode
    afterwards.
    """
    predictions: Predictions | None = None
    other_failed = True

    def predict() -> None:
        nonlocal predictions, other_failed
        with suppress(_OtherRankFailed):
            predictions = _plain(task.predictions(_InStep(module, interruption)))
            other_failed = False

    module.eval()
    try:
        error = failure_of(predict)
    finally:
        module.train()
    if other_failed and error is None:
        return None, OTHER_RANK
    if interruption.world.agree(_FAILED if predictions is None else 0):
        return None, error or OTHER_RANK
    return predictions, ""


class _OtherRankFailed(Exception):
    """A rank will not call the model any more."""


class _InStep(Module):
    """Calls a module only if all ranks are about to.

    Sharded engines gather weights in a call, and would wait for a rank that could not read its
    samples until the run times out. Raises Interrupted on all ranks in the same call.
    """

    def __init__(self, module: Module, interruption: Interruption) -> None:
        super().__init__()
        self.module, self._interruption = module, interruption
        self.training = module.training

    def forward(self, *inputs: Any, **named: Any) -> Any:
        agreed = self._interruption.world.agree(int(self._interruption.requested()))
        if agreed & _FAILED:
            raise _OtherRankFailed
        if agreed:
            raise Interrupted(Action(agreed))
        return self.module(*inputs, **named)


def _plain(predictions: Predictions) -> Predictions:
    """With cells that are text or a number, and MISSING for None. Raises ValueError."""
    for row in predictions.rows:
        if len(row) != len(predictions.columns):
            raise ValueError(f"a row has {len(row)} cells for {len(predictions.columns)} columns")
    return replace(predictions, rows=[tuple(map(_plain_cell, row)) for row in predictions.rows])


def _plain_cell(cell: Any) -> str | float:
    if cell is None:
        return MISSING
    if isinstance(cell, str | float) or type(cell) is int:
        return cell
    try:
        number = cell.item()  # of NumPy and torch, with one element
    except (AttributeError, RuntimeError, ValueError):
        return str(cell)
    return number if isinstance(number, float) or type(number) is int else str(number)


def columns_of_one_type(predictions: Predictions) -> list[list[str | float | None]]:
    """The rows with each column all text, or all numbers with None for MISSING.

    A table of W&B takes no other ones.
    """
    columns = [_column(cells) for cells in zip(*predictions.rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _column(cells: Sequence[str | float | None]) -> Sequence[str | float | None]:
    if any(isinstance(cell, str) and cell != MISSING for cell in cells):
        return [_number(cell) for cell in cells]
    return [None if cell == MISSING else cell for cell in cells]


def predictions_table(predictions: Predictions) -> str:
    """A row per sample, and below the table the captions of the pictures."""
    rows = ([_number(cell) for cell in row] for row in predictions.rows)
    captions = [f"{picture.name}: {_escape(picture.caption)}" for picture in predictions.pictures]
    return "\n\n".join([_table(predictions.columns, rows), *captions])


def settings_table(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """A row per setting, with its origin."""
    rows = ((key, str(value), origins.get(key, "")) for key, value in values.items())
    return _table(("setting", "value", "from"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in [columns, *rows]]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def _number(cell: str | float | None) -> str:
    if cell is None:
        return MISSING
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def _escape(text: str) -> str:
    """`text` with every character that Markdown or HTML interprets as a character reference."""
    return "".join(
        "<br>" if c == "\n" else c if c.isalnum() or c in _PLAIN else f"&#{ord(c)};" for c in text
    )
