"""Settings under which a run that does not fit would fit, nearest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engines.catalog import ENGINES
from launcher.base.diagnostics import SettingsError
from launcher.config import batching
from launcher.config.provenance import Resolved
from launcher.plan.plan import Plan

MOST_PIECES = 3
"""Pieces of advice."""
_CHECKPOINTING = "memory.activation_checkpointing"
_RETURN_FREED = "memory.return_freed"
PlanWith = Callable[[Sequence[str]], Plan]


@dataclass(frozen=True)
class Advice:
    """Settings that fit, as KEY=VALUE, and their plan."""

    sets: Sequence[str]
    plan: Plan


def advise(resolved: Resolved, plan_with: PlanWith) -> list[Advice]:
    """The first changes that fit; empty if none does.

    `plan_with` plans the run with further settings. First the micro-batch, at the same global
    batch; then recomputed activations, loading without workers, engines that shard, and on a CPU
    freed memory that returns to the system at once, which takes the most time.
    """
    pieces: list[Advice] = []
    for steps in _ladders(resolved):
        if resolved.settings.compile == "on":
            steps = _close_to_fit(steps, plan_with)
        if (first := _first_fit(steps, plan_with)) is not None:
            pieces.append(first)
        if len(pieces) == MOST_PIECES:
            break
    return pieces


def _first_fit(steps: Sequence[list[str]], plan_with: PlanWith) -> Advice | None:
    """The first of `steps` that fits, if the last does, which saves the most.

    A search in halves, since a plan of a large model takes seconds. Of two, the first comes first.
    """
    steps = [*steps]
    first, low, high = None, 0, len(steps)
    middle = high - 1 if high > 2 else 0
    while low < high:
        try:
            plan = plan_with(steps[middle])
        except SettingsError:  # a combination that does not exist
            del steps[middle]
            high -= 1
            middle = max(low, min(middle, high - 1))
            continue
        if plan.fits:
            first, high = Advice(steps[middle], plan), middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return first


def _close_to_fit(steps: list[list[str]], plan_with: PlanWith) -> list[list[str]]:
    """The first that fits without compiling, and the one before it: the others take long to plan.

    A compiled step needs down to half the memory, and so does most often the next of `steps`.
    """
    quick = [[*sets, "compile=off"] for sets in steps]
    first = _first_fit(quick, plan_with)
    end = len(steps) if first is None else quick.index([*first.sets]) + 1
    return steps[max(end - 2, 0) : end]


def _ladders(resolved: Resolved) -> Iterator[list[list[str]]]:
    """Lists of changes, each more saving than the one before it in its list."""
    smaller = list(_micro_batches(resolved))
    recompute = [f"{_CHECKPOINTING}=full"] if _recomputes(resolved) != "full" else []
    yield smaller
    if recompute:
        yield [recompute, *([*each, *recompute] for each in smaller)]
    if resolved.settings.loader.workers:
        none = ["loader.workers=0"]  # their forks keep a copy of a state in host memory
        yield [none, *([*none, *each, *recompute] for each in smaller)]
    if resolved.world_size > 1:
        for engine in sorted(ENGINES.values(), key=lambda each: each.placement.offloads):
            is_other = engine.name != resolved.settings.engine.name
            if is_other and engine.placement.weights != "replicated":
                change = [f"engine.name={engine.name}"]
                yield [change, *([*change, *each, *recompute] for each in smaller)]
    if resolved.device == "cpu" and not resolved.settings.memory.return_freed:
        none = ["loader.workers=0"] if resolved.settings.loader.workers else []
        freed = [*none, f"{_RETURN_FREED}=true"]
        yield [freed, *([*freed, *each, *recompute] for each in smaller)]


def _recomputes(resolved: Resolved) -> str:
    return str(resolved.settings.memory.activation_checkpointing)


def _micro_batches(resolved: Resolved) -> Iterator[list[str]]:
    for numbers in batching.halvings(resolved.batching):
        whole = f"{batching.GLOBAL}={numbers.global_batch}"  # otherwise it would change as well
        yield [f"{batching.MICRO}={numbers.micro_batch}", whole]
