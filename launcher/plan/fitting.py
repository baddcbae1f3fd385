"""What fits: changes that save memory, from cheap to costly, and the first of them that fits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import SettingsError, plain
from launcher.config import batching
from launcher.config.provenance import USER_LAYERS, Resolved

if TYPE_CHECKING:
    from launcher.plan.plan import Plan

ENGINE = "engine.name"
MOST_PIECES = 3
"""Pieces of advice."""
_CHECKPOINTING, _WORKERS, _RETURN_FREED = (
    "memory.activation_checkpointing",
    "loader.workers",
    "memory.return_freed",
)

Change = Mapping[str, Any]
"""Settings by key."""
PlanWith = Callable[[Change], "Plan"]


@dataclass(frozen=True)
class Advice:
    """Settings that fit, and their plan."""

    change: Change
    plan: Plan

    @property
    def sets(self) -> list[str]:
        """As KEY=VALUE."""
        return [f"{key}={plain(value)}" for key, value in self.change.items()]


def ladders(resolved: Resolved, *, keeps_given: bool) -> list[list[Change]]:
    """Lists of changes at the same global batch, in which each saves more than the one before.

    Smaller micro-batches; whole and smaller ones with recomputed activations; these without loader
    workers, whose forks keep a copy of weights on the host, and at last, on a CPU, with freed
    memory that returns to the system at once, which takes the most time. `keeps_given`: settings
    of the user stay.
    """

    def may_change(key: str, value: object = None) -> bool:
        is_given = resolved.values[key].origin.layer in USER_LAYERS
        return resolved.values[key].value != value and not (keeps_given and is_given)

    smaller: list[Change] = []
    if may_change(batching.MICRO) and may_change(batching.ACCUMULATION):
        smaller = [  # with the global batch, which would change as well
            {batching.MICRO: numbers.micro_batch, batching.GLOBAL: numbers.global_batch}
            for numbers in batching.halvings(resolved.batching)
        ]
    full: Change = {_CHECKPOINTING: "full"} if may_change(_CHECKPOINTING, "full") else {}
    recomputed: list[Change] = [{**change, **full} for change in ({}, *smaller)] if full else []
    frugal: list[Change] = []
    none: Change = {_WORKERS: 0} if may_change(_WORKERS, 0) else {}
    if none:
        frugal = [{**none, **change} for change in ({}, *(recomputed or smaller))]
    if resolved.device == "cpu" and may_change(_RETURN_FREED, True):
        most = [{}, *smaller, *recomputed][-1]
        frugal.append({**most, **none, _RETURN_FREED: True})
    return [smaller, recomputed, frugal]


def first_fit(changes: Sequence[Change], plan_with: PlanWith) -> Advice | None:
    """The first of `changes` that fits, by bisection; None: not even the last, which saves most."""
    plans: dict[int, Plan] = {}

    def fits(at: int) -> bool:
        try:
            plans[at] = plan_with(changes[at])
        except SettingsError:  # a combination that does not exist
            return False
        return plans[at].fits is not False

    last = len(changes) - 1
    if not changes or not fits(last):
        return None
    at = bisect_left(range(last), True, key=fits)
    return Advice(changes[at], plans[at])


def advise(resolved: Resolved, plan_with: PlanWith) -> list[Advice]:
    """Changes of a run that does not fit; empty if none does. `plan_with` plans it with a change.

    First the cheapest, at last engines that shard weights.
    """
    pieces: list[Advice] = []
    for changes in _all_ladders(resolved):
        if len(pieces) < MOST_PIECES and (first := first_fit(changes, plan_with)) is not None:
            pieces.append(first)
    return pieces


def _all_ladders(resolved: Resolved) -> Iterator[list[Change]]:
    smaller, recomputed, frugal = ladders(resolved, keeps_given=False)
    yield from (smaller, recomputed, frugal)
    for engine in sorted(ENGINES.values(), key=lambda each: each.placement.offloads):
        is_other = engine.name != resolved.settings.engine.name
        if is_other and resolved.world_size > 1 and engine.placement.weights != "replicated":
            yield [{ENGINE: engine.name, **change} for change in ({}, *(recomputed or smaller))]
