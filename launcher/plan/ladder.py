"""The ladder: settings that save memory, from cheap to costly, until a plan fits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from gearshift.engines.catalog import ENGINES, ON_HOST, SHARDED, UPDATED_ON_HOST, Placement, missing
from gearshift.launcher.base.diagnostics import SettingsError, plain
from gearshift.launcher.config import batching
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.provenance import Resolved
from gearshift.training.callbacks.base import Facts

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan

ENGINE = "engine.name"
_STATE = "optim.state"
_ACTIVATIONS = "memory.activation_offload"
NUMBERS = "changes the numbers slightly"
TRAINED = "changes what is trained"

Change = Facts
"""Settings by key."""
PlanWith = Callable[[Change], "Plan"]


@dataclass(frozen=True)
class Rung:
    """Settings on top of those of the rung below, with smaller micro-batches where needed."""

    name: str
    change: Change = field(default_factory=dict)
    effect: str = ""
    """Of these settings on the training; empty: it computes the same."""
    placement: Placement | None = None
    """With the first engine of this placement that can train it."""
    saves: Literal["any", "gpu", "host", "cpu"] = "any"
    """Which memory: that of GPUs, the main memory beside or without them, that of runs on CPUs."""
    drops: tuple[str, ...] = ()
    """Settings of rungs below that it does without."""
    is_usual: bool = False
    """The fastest of these that fit is taken; of others the first."""


_EARLIER = (ENGINE, _STATE, _ACTIVATIONS)
RUNGS = (
    Rung("smaller micro-batch", is_usual=True),
    Rung("activation checkpointing", {"memory.activation_checkpointing": "full"}, is_usual=True),
    # Forks of the process keep a copy of the weights.
    Rung("no loader workers", {"loader.workers": 0}, saves="host"),
    Rung("freed memory returned", {"memory.return_freed": True}, saves="cpu"),
    Rung("sharded weights", placement=SHARDED),
    Rung("optimizer states in bf16", {_STATE: "bf16"}, NUMBERS),
    Rung("optimizer states in int8", {_STATE: "int8"}, NUMBERS),
    Rung("activation offload", {_ACTIVATIONS: True}, saves="gpu"),
    Rung("optimizer offload", placement=UPDATED_ON_HOST, saves="gpu", drops=(_STATE,)),
    Rung("weights offload", placement=ON_HOST, saves="gpu", drops=(_STATE,)),
    Rung("LoRA", {"model.lora.rank": 16}, TRAINED, SHARDED, drops=_EARLIER),
    Rung("nf4 weights", {"model.quantize": "nf4"}, TRAINED, SHARDED, drops=_EARLIER),
)
"""Cheap to costly. A rung whose settings do not exist for a run is left out."""


@dataclass(frozen=True)
class Step:
    """A rung with all its settings, and their plan."""

    name: str
    change: Change
    plan: Plan
    effect: str = ""
    """Of all its settings."""
    is_usual: bool = False
    is_bound: bool = False
    """The plan has weights, gradients and optimizer state only: they do not fit by themselves."""

    @property
    def sets(self) -> list[str]:
        """As KEY=VALUE."""
        return [f"{key}={plain(value)}" for key, value in self.change.items()]


def climb(
    resolved: Resolved,
    plan: Plan,
    plan_with: PlanWith,
    rungs: Sequence[Rung] = RUNGS,
    *,
    bound_with: PlanWith | None = None,
) -> Iterator[Step]:
    """The rungs for a run whose `plan` does not fit, at the same global batch.

    `plan_with` plans it with a change. Each has the largest micro-batch that fits, the smallest if
    none does. The last one is the first that fits, of the usual rungs all. Settings of the user
    stay in rungs that change the training. `bound_with` plans, by arithmetic, what a run with a
    change needs at least: where that does not fit, nothing else is planned.
    """
    smaller: list[Change] = [{}]
    for numbers in batching.halvings(resolved.batching):
        # With the global batch, which would change as well.
        batch = {batching.MICRO: numbers.micro_batch, batching.GLOBAL: numbers.global_batch}
        smaller.append(batch)
    carried: Change = {}
    effect = ""
    needed = [(plan.device, plan.host_bytes)]
    fits = False
    for rung in rungs:
        if fits and not rung.is_usual:
            return
        if not _exists(rung, resolved, plan):
            continue
        below = {key: value for key, value in carried.items() if key not in rung.drops}
        of_all = rung.effect or ("" if rung.drops else effect)
        for engine in _engines(rung, resolved, plan):
            change = {**below, **rung.change, **engine}
            change = {
                key: value for key, value in change.items() if resolved.values[key].value != value
            }
            changes = [{**change, **batch} for batch in smaller]
            step = partial(Step, rung.name, effect=of_all, is_usual=rung.is_usual)
            if bound_with:
                bound = _plan(changes[-1], bound_with)
                if not bound:
                    continue
                if bound.fits is False:
                    if change != carried or not carried:
                        carried = change
                        effect = of_all
                        yield step(changes[-1], bound, is_bound=True)
                    break
            fit = first_fit(changes, plan_with)
            if not fit:
                continue
            index, planned = fit
            needs = (planned.device, planned.host_bytes)
            if needs in needed:  # the settings have no effect on this run
                continue
            if planned.fits is not False:  # rungs above need no smaller micro-batch
                fits = True
                smaller = smaller[: index + 1]
            needed.append(needs)
            carried = change
            effect = of_all
            yield step(changes[index], planned)
            break


def _exists(rung: Rung, resolved: Resolved, plan: Plan) -> bool:
    """Whether its settings exist and may change, and it saves memory that is too small."""
    is_cpu = plan.target.device == "cpu"
    lacks = {"any": True, "gpu": plan.lacks_device, "host": plan.lacks_ram, "cpu": is_cpu}
    if not lacks[rung.saves]:
        return False
    if rung.effect and not resolved.keys.user.isdisjoint(rung.change):
        return False
    for key in rung.change:
        if key not in resolved.values or why_ineffective(resolved.values, key) is not None:
            return False
    return True


def _engines(rung: Rung, resolved: Resolved, plan: Plan) -> list[Change]:
    """The engines of its placement, which shards for several ranks only; or that of the run."""
    same = (None, ENGINES[resolved.settings.engine.name].placement)
    is_sharded = rung.placement == SHARDED
    if rung.placement in same or (is_sharded and plan.target.ranks == 1):
        return [{}]
    engines = []
    for entry in ENGINES.values():
        if entry.placement == rung.placement and not missing(entry):
            engines.append(entry)
    if not is_sharded:
        engines.sort(key=lambda engine: engine.ds_config is None)  # DeepSpeed updates faster there
    return [{ENGINE: engine.name} for engine in engines]


def first_fit(changes: Sequence[Change], plan_with: PlanWith) -> tuple[int, Plan] | None:
    """The first of `changes` that fits, otherwise the last, which saves most; None: it is invalid.

    Each saves more than the one before.
    """
    plans: dict[int, Plan] = {}

    def fits(index: int) -> bool:
        plan = _plan(changes[index], plan_with)
        if plan is None:
            return False
        plans[index] = plan
        return plan.fits is not False

    last = len(changes) - 1
    # Where nothing fits, as on most rungs of a large model, one plan tells.
    index = bisect_left(range(last), True, key=fits) if fits(last) else last
    return (index, plans[index]) if index in plans else None


def _plan(change: Change, plan_with: PlanWith) -> Plan | None:
    """The plan with `change`; None: a combination that does not exist."""
    with suppress(SettingsError):
        return plan_with(change)
    return None


def choose_step(steps: Sequence[Step]) -> Step | None:
    """The fastest of the usual rungs that fit, otherwise the first that fits; None: none does."""
    fitting = [step for step in steps if step.plan.fits is not False]
    usual = [step for step in fitting if step.is_usual]
    usual.sort(key=lambda step: step.plan.cost)
    return next(iter(usual + fitting), None)
