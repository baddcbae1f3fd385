"""What a task makes of samples, asked for such that no fault of it ends the run or parts ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import Module

if TYPE_CHECKING:
    from engines.base import World
    from models.base import Predictions, Predicts

ELSEWHERE = "another rank could not make them"


def attempt(task: Predicts, module: Module, world: World) -> tuple[Predictions | None, str]:
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
