"""The factor that keeps fp16 gradients above their smallest number."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class LossScale:
    """Halves when gradients overflow, doubles after 2000 updates in a row without.

    Source: Micikevicius et al., Mixed Precision Training, 2018, section 3.2; the numbers are those
    of torch.amp.GradScaler. The state is the same on every rank as long as each is told the same.
    """

    GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000
    LEAST = 1.0

    def __init__(self, value: float = 2.0**16):
        self.value = value
        self.good_updates = 0

    def scale(self, loss: Tensor) -> Tensor:
        return loss * self.value

    def told(self, overflow: bool) -> None:
        """Take note of an update that was taken, or skipped for an overflow."""
        if overflow:
            self.value = max(self.value * self.BACKOFF, self.LEAST)
            self.good_updates = 0
            return
        self.good_updates += 1
        if self.good_updates == self.INTERVAL:
            self.value *= self.GROWTH
            self.good_updates = 0

    def state(self) -> dict[str, float]:
        return {"value": self.value, "good_updates": float(self.good_updates)}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave; one that is empty changes nothing."""
        if not state:
            return
        self.value = state["value"]
        self.good_updates = int(state["good_updates"])
