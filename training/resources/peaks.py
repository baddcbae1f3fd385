"""The most memory a run takes: of its largest rank, and what of it came with data and model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.resources import memory

if TYPE_CHECKING:
    import torch

    from engines.base import World

_NOTHING = -1


class Peaks:
    """Made just before data and model are built: what is taken from then on is the run's own."""

    def __init__(self) -> None:
        self._before = memory.host_bytes()

    def own(self, device: torch.device) -> dict[str, int | None]:
        """Bytes that this process took at most at once; its loader workers are not counted.

        "device": of tensors, None on a CPU; "host": resident memory; "host_growth": the same above
        what the process held when this was made.
        """
        taken = memory.peaks(device)
        host = taken["host"] or 0
        return {**taken, "host_growth": max(0, host - self._before)}

    def agreed(self, world: World) -> dict[str, int | None]:
        """Of each number the largest of all ranks'. Collective."""
        import torch

        own = self.own(world.device)
        told = [_NOTHING if count is None else count for count in own.values()]
        largest = world.maximum(torch.tensor(told, dtype=torch.int64, device=world.device))
        return {
            name: None if count == _NOTHING else count
            for name, count in zip(own, largest.tolist(), strict=True)
        }
