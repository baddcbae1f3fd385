"""What is done about a loss or a gradient that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from engines.base import Update

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from engines.base import Engine, OptimizerSpec, World
    from training.accumulate import Accumulated

MOST_UNCHECKED = 50
"""Steps after which the host waits for the device to see whether they were sound."""
MEND = "lower optim.lr, set optim.clip_norm, or write  train.on_nonfinite: skip 3"


class Nonfinite:
    """Takes the updates, and knows when to go no further.

    With `stop` the host does not wait for the device: a faulty step is found some steps later, and
    always before anything is evaluated or saved. With `skip N` ranks agree before each update.
    """

    def __init__(self, policy: str):
        """`policy` is "stop", or "skip N": leave out at most N steps in a row."""
        self._most = int(policy.removeprefix("skip ")) if policy != "stop" else 0
        self._unchecked: list[tuple[int, Tensor, Update]] = []
        self._checked: dict[int, tuple[float, float]] = {}
        self._in_a_row = 0
        self._fault: str | None = None

    def facts(self) -> dict[str, int]:
        """What `resume` needs, as plain numbers."""
        return {"in_a_row": self._in_a_row}

    def resume(self, facts: Mapping[str, int]) -> None:
        """Go on from what another process wrote down."""
        self._in_a_row = facts["in_a_row"]

    def take(self, engine: Engine, window: Accumulated, step: int) -> Update:
        """Update number `step`, or none where the policy is to skip. Collective."""
        if self._most:
            return self._take_or_skip(engine, window, step)
        update = engine.step()
        self._unchecked.append((step, window.loss, update))
        return update

    def is_due(self, device: torch.device) -> bool:
        """Whether looking costs nothing, or was put off for long; the same on every rank."""
        return device.type == "cpu" or len(self._unchecked) >= MOST_UNCHECKED

    def met(self) -> bool:
        """Whether this rank met a fault that ends the run; waits for the device."""
        if self._unchecked:
            steps, losses, updates = zip(*self._unchecked, strict=True)
            norms = _numbers([update.norm for update in updates])
            self._checked = {
                # fp16 tried too large a loss scale where it skipped: no fault of the gradients.
                step: (loss, 0.0 if update.skipped else norm)
                for step, loss, norm, update in zip(
                    steps, _numbers(losses), norms, updates, strict=True
                )
            }
            self._unchecked.clear()
        return self._fault is not None or any(
            not _sound(*found) for found in self._checked.values()
        )

    def describe(self, world: World) -> str:
        """What was met, the same text on every rank. Collective, once any rank met something."""
        if self._fault is not None:
            return f"{self._fault}; {MEND}"
        faulty = [step for step, found in self._checked.items() if not _sound(*found)]
        first = min(faulty, default=math.inf)
        step = -int(world.maximum(torch.tensor(-first, dtype=torch.float64)).item())
        loss, norm = self._checked.get(step, (0.0, 0.0))
        mean = world.sum(torch.tensor([loss, norm], dtype=torch.float64)) / world.size
        loss, norm = mean.tolist()
        return f"loss {loss:g} and gradient norm {norm:g} at step {step}; {MEND}"

    def _take_or_skip(self, engine: Engine, window: Accumulated, step: int) -> Update:
        is_finite = bool(torch.isfinite(window.loss))
        if engine.world.agree(int(not is_finite)):
            engine.discard()
            self._skipped("loss", step)
            return Update(torch.full_like(window.loss, math.nan), skipped=True)
        update = engine.step()
        if update.skipped or _sound(0.0, update.norm.item()):
            self._in_a_row = self._in_a_row if update.skipped else 0
            return update
        self._skipped("gradient", step)
        if engine.world.agree(int(not _weights_are_finite(engine))):
            self._fault = f"a gradient that was not finite reached the weights at step {step}"
        return replace(update, skipped=True)

    def _skipped(self, what: str, step: int) -> None:
        self._in_a_row += 1
        if self._in_a_row > self._most:
            self._fault = (
                f"{self._in_a_row} steps in a row were not finite, "
                f"the last the {what} of step {step}"
            )


def guarded(spec: OptimizerSpec, world: World) -> OptimizerSpec:
    """`spec` whose optimizer leaves weights and slots alone where a gradient is not finite.

    All ranks leave them together. An engine clips and updates in one go, so only a hook of the
    optimizer can see the gradients in between. Every update waits for the device.
    """

    def build(groups: list[dict[str, Any]]) -> Optimizer:
        optimizer = spec.build(groups)
        optimizer.register_step_pre_hook(hold)
        return optimizer

    def hold(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [_local(p.grad) for p in held if p.grad is not None]
        if world.agree(int(not _are_finite(gradients))):
            for parameter in held:
                parameter.grad = None

    return replace(spec, build=build)


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """The values of `scalars`, brought to the host in one transfer."""
    return [scalars[0].item()] if len(scalars) == 1 else torch.stack(list(scalars)).tolist()


def _sound(loss: float, norm: float) -> bool:
    # DeepSpeed gives -1 for a norm that is not finite.
    return math.isfinite(loss) and 0 <= norm < math.inf


def _weights_are_finite(engine: Engine) -> bool:
    return _are_finite([p.data for p in engine.state().pieces if p.kind == "weight"])


def _are_finite(tensors: list[Tensor]) -> bool:
    norms = torch._foreach_norm([t for t in tensors if t.numel()], ord=math.inf)
    return not norms or bool(torch.isfinite(torch.stack(norms)).all())


def _local(gradient: Tensor) -> Tensor:
    """This rank's part of a gradient that FSDP shards."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient
