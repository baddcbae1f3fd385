"""What ranks agree on: units and requested actions before a step, and the first error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from gearshift.engines.base import World

FLAG_BITS = 12
WORKER_DIED = 1 << 11
"""The flag of a rank without a data-loader worker, above those of Action and of the loop."""
_MAX_ERROR_BYTES = 1000
T = TypeVar("T")

Agreed = tuple[Mapping[str, int], int]
"""Units and flags of all ranks."""


def agree_later(world: World, units: Mapping[str, int], flags: int) -> Callable[[], Agreed]:
    """Sum `units` over ranks, and combine `flags` by bitwise or. Collective.

    Starts one small sum on the host; the result waits for the ranks. All ranks pass the same terms
    in the same order.
    """
    assert 0 <= flags < 1 << FLAG_BITS
    if world.size == 1:
        return lambda: (units, flags)
    bits = [flags >> bit & 1 for bit in range(FLAG_BITS)]
    addends = torch.tensor([*bits, *units.values()], dtype=torch.int64)
    total = world.sum_later(addends)

    def result() -> Agreed:
        sums = total().tolist()
        agreed = sum(1 << bit for bit, vote in enumerate(sums[:FLAG_BITS]) if vote)
        return dict(zip(units, sums[FLAG_BITS:], strict=True)), agreed

    return result


def first_error(world: World, error: str | None) -> str | None:
    """The error of the first rank that has one, with its rank; None: no rank failed. Collective.

    `error` is this rank's; a long text is cut.
    """
    if not world.agree(int(error is not None)):
        return None
    backwards = world.size - world.rank if error is not None else 0
    first = world.size - int(world.maximum(torch.tensor([backwards])))
    text = world.broadcast(str(error).encode()[:_MAX_ERROR_BYTES], first)
    where = f"rank {first}: " if world.size > 1 else ""
    return where + text.decode("utf-8", "replace")


def attempt(
    world: World, action: Callable[[], T], *errors: type[Exception]
) -> tuple[T, str | None]:
    """The result of `action` on this rank, and the first of `errors` that any rank met. Collective.

    No rank waits for the others in a collective: an action on a slow disk may outlast its time-out.
    """
    result: Any = None
    error = None
    try:
        result = action()
    except errors as raised:
        error = str(raised)
    world.wait_for_all()
    return result, first_error(world, error)
