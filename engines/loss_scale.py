"""The loss scale of fp16."""

from __future__ import annotations

from gearshift.engines.base import Numbers


class LossScale:
    """The loss scale of fp16: halves on overflow, doubles after 2000 updates in a row without one.

    Source: Micikevicius et al., Mixed Precision Training, 2018, section 3.2; the numbers are those
    of torch.amp.GradScaler. The state is equal on all ranks if all make the same calls.
    """

    INTERVAL = 2000
    MINIMUM = 1.0

    def __init__(self, value: float = 2.0**16):
        self.value = value
        self.good_updates = 0

    def update(self, overflow: bool) -> bool:
        """Adapt the scale after an update that was taken, or left out for an overflow.

        Gives whether a smaller scale may prevent the overflow: at its minimum it cannot.
        """
        before = self.value
        if overflow:
            self.value = max(self.value / 2, self.MINIMUM)
            self.good_updates = 0
            return self.value < before
        self.good_updates += 1
        if self.good_updates == self.INTERVAL:
            self.value *= 2
            self.good_updates = 0
        return False

    def state(self) -> dict[str, float]:
        """The scale and the updates since the last overflow, for a checkpoint."""
        return {"value": self.value, "good_updates": float(self.good_updates)}

    def load(self, state: Numbers) -> None:
        """Load the result of `state`; an empty one changes nothing."""
        if not state:
            return
        self.value = state["value"]
        self.good_updates = int(state["good_updates"])
