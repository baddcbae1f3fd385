"""What a task makes of samples, asked for such that no fault of it ends the run or parts ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch.nn import Module

from models.base import Predictions

if TYPE_CHECKING:
    from engines.base import World
    from models.base import HasPredictions, Predictions

ELSEWHERE = "another rank could not make them"


def predict_on_all_ranks(
    task: HasPredictions, module: Module, world: World
) -> tuple[Predictions | None, str]:
    """What the task predicts on every rank; or None on every rank, and the fault.

    Collective. `module` is in evaluation mode meanwhile, and in training mode afterwards.
    """
    found: Predictions | None = None
    fault = ""
    module.eval()
    try:
        found = task.predictions(_InStep(module, world))
    except _OtherRankFailed:
        return None, ELSEWHERE
    except Exception as raised:  # a tracker must not end a run, whatever a task does
        fault = f"{type(raised).__name__}: {raised}"
    finally:
        module.train()
    if world.agree(int(found is None)):
        return None, fault or ELSEWHERE
    return found, fault


class _OtherRankFailed(Exception):
    """A rank will not call the model any more."""


class _InStep(Module):
    """Calls a module only where all ranks are about to: sharded engines gather weights in a call,
    and would wait for a rank that could not read its samples until the run is given up."""

    def __init__(self, module: Module, world: World) -> None:
        super().__init__()
        self.module, self._world = module, world
        self.training = module.training

    def forward(self, *inputs: Any, **named: Any) -> Any:
        if self._world.agree(0):
            raise _OtherRankFailed
        return self.module(*inputs, **named)


_PLAIN = frozenset(" ,;:.'\"/?=%@")


def predictions_table(found: Predictions) -> str:
    """A row a sample, and below it what the pictures show."""
    rows = ([_number(cell) for cell in row] for row in found.rows)
    captions = [f"{picture.name}: {_plain(picture.caption)}" for picture in found.pictures]
    return "\n\n".join([_table(found.columns, rows), *captions])


def settings_table(values: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """A row a setting, with what decided it."""
    rows = ((key, str(value), origins.get(key, "")) for key, value in values.items())
    return _table(("setting", "value", "from"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [columns, *rows]
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(columns), *lines[1:]])


def _number(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def _plain(text: str) -> str:
    """`text` with all that Markdown or HTML would take for its own as character references."""
    return "".join(
        "<br>" if c == "\n" else c if c.isalnum() or c in _PLAIN else f"&#{ord(c)};" for c in text
    )
