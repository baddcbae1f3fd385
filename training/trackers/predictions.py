"""Sample predictions for trackers: made on all ranks, and rendered as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from torch.nn import Module

from training.trackers.base import failure_of

if TYPE_CHECKING:
    from engines.base import World
    from models.base import HasPredictions, Predictions

OTHER_RANK = "another rank could not make them"
_PLAIN = frozenset(" ,;:.'\"/?=%@")


def predict_on_all_ranks(
    task: HasPredictions, module: Module, world: World
) -> tuple[Predictions | None, str]:
    """The predictions of `task` on every rank; or None on every rank, and the error.

    Collective. `module` is in evaluation mode meanwhile, and in training mode afterwards.
    """
    found: Predictions | None = None
    other_failed = True

    def predict() -> None:
        nonlocal found, other_failed
        with suppress(_OtherRankFailed):
            found = task.predictions(_InStep(module, world))
            other_failed = False

    module.eval()
    try:
        error = failure_of(predict)
    finally:
        module.train()
    if other_failed and error is None:
        return None, OTHER_RANK
    if world.agree(int(found is None)):
        return None, error or OTHER_RANK
    return found, ""


class _OtherRankFailed(Exception):
    """A rank will not call the model any more."""


class _InStep(Module):
    """Calls a module only if all ranks are about to.

    Sharded engines gather weights in a call, and would wait for a rank that could not read its
    samples until the run times out.
    """

    def __init__(self, module: Module, world: World) -> None:
        super().__init__()
        self.module, self._world = module, world
        self.training = module.training

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if self._world.agree(0):
            raise _OtherRankFailed
        return self.module(*inputs, **named)


def predictions_table(found: Predictions) -> str:
    """A row per sample, and below the table the captions of the pictures."""
    rows = ([_number(cell) for cell in row] for row in found.rows)
    captions = [f"{picture.name}: {_escape(picture.caption)}" for picture in found.pictures]
    return "\n\n".join([_table(found.columns, rows), *captions])


def settings_table(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """A row per setting, with its origin."""
    rows = ((key, str(value), origins.get(key, "")) for key, value in values.items())
    return _table(("setting", "value", "from"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in [columns, *rows]]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def _number(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def _escape(text: str) -> str:
    """`text` with every character that Markdown or HTML interprets as a character reference."""
    return "".join(
        "<br>" if c == "\n" else c if c.isalnum() or c in _PLAIN else f"&#{ord(c)};" for c in text
    )
