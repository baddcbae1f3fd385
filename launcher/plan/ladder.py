"""The ladder: settings that save memory, from cheap to costly, until a plan fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gearshift.engines.catalog import ENGINES, Placement, missing
from gearshift.launcher.base.diagnostics import SettingsError, plain
from gearshift.launcher.config import batching
from gearshift.launcher.config.check import why_ineffective
from gearshift.launcher.config.provenance import Resolved

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan

ENGINE = "engine.name"
_STATE = "optim.state"
_ACTIVATIONS = "memory.activation_offload"
NUMBERS = "changes the numbers slightly"
TRAINED = "changes what is trained"
_EFFECTS = ("", NUMBERS, TRAINED)

Change = Mapping[str, Any]
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


_SHARDED = Placement("sharded", "sharded", "sharded")
_HOST = Placement("host", "host", "host")
_UPDATED_ON_HOST = Placement(gradients="host", optimizer="host")
_EARLIER = (ENGINE, _STATE, _ACTIVATIONS)
RUNGS = (
    Rung("smaller micro-batch", is_usual=True),
    Rung("activation checkpointing", {"memory.activation_checkpointing": "full"}, is_usual=True),
    # Forks of the process keep a copy of the weights.
    Rung("no loader workers", {"loader.workers": 0}, saves="host"),
    Rung("freed memory returned", {"memory.return_freed": True}, saves="cpu"),
    Rung("sharded weights", placement=_SHARDED),
    Rung("optimizer states in bf16", {_STATE: "bf16"}, NUMBERS),
    Rung("optimizer states in int8", {_STATE: "int8"}, NUMBERS),
    Rung("activation offload", {_ACTIVATIONS: True}, saves="gpu"),
    Rung("optimizer offload", placement=_UPDATED_ON_HOST, saves="gpu", drops=(_STATE,)),
    Rung("weights offload", placement=_HOST, saves="gpu", drops=(_STATE,)),
    Rung("LoRA", {"model.lora.rank": 16}, TRAINED, _SHARDED, drops=_EARLIER),
    Rung("nf4 weights", {"model.quantize": "nf4"}, TRAINED, _SHARDED, drops=_EARLIER),
)
"""Cheap to costly. A rung whose settings do not exist for a run is left out."""
EXACT = [rung for rung in RUNGS if not rung.effect and rung.placement is None]
"""Rungs of one engine that compute the same."""


@dataclass(frozen=True)
class Step:
    """A rung with all its settings, and their plan."""

    name: str
    change: Change
    plan: Plan
    effect: str = ""
    """Of all its settings."""
    is_usual: bool = False

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
    keeps_given: bool = False,
) -> Iterator[Step]:
    """The rungs for a run whose `plan` does not fit, at the same global batch.

    `plan_with` plans it with a change. Each has the largest micro-batch that fits, the smallest if
    none does. The last one is the first that fits, of the usual rungs all. `keeps_given`: settings
    of the user stay.
    """
    keys = {batching.MICRO, batching.ACCUMULATION}
    smaller: list[Change] = [{}]
    if not (keeps_given and keys & resolved.keys.user):
        smaller += [  # with the global batch, which would change as well
            {batching.MICRO: numbers.micro_batch, batching.GLOBAL: numbers.global_batch}
            for numbers in batching.halvings(resolved.batching)
        ]
    effects = {key: rung.effect for rung in rungs for key in rung.change}
    carried: Change = {}
    needed = [(plan.device, plan.host_bytes)]
    fits = False
    for rung in rungs:
        if fits and not rung.is_usual:
            return
        if not _exists(rung, resolved, plan, keeps_given or bool(rung.effect)):
            continue
        base = {key: value for key, value in carried.items() if key not in rung.drops}
        for engine in _engines(rung, resolved, plan):
            change = {**base, **rung.change, **engine}
            change = {k: v for k, v in change.items() if resolved.values[k].value != v}
            changes = [{**change, **numbers} for numbers in smaller]
            if (fit := first_fit(changes, plan_with, rung.is_usual)) is None:
                continue
            at, planned = fit
            needs = (planned.device, planned.host_bytes)
            if needs in needed:  # the settings have no effect on this run
                continue
            if planned.fits is not False:  # rungs above need no smaller micro-batch
                fits = True
                smaller = smaller[: at + 1]
            needed.append(needs)
            carried = change
            effect = max((effects.get(key, "") for key in change), key=_EFFECTS.index, default="")
            yield Step(rung.name, changes[at], planned, effect, rung.is_usual)
            break


def _exists(rung: Rung, resolved: Resolved, plan: Plan, keeps_given: bool) -> bool:
    """Whether its settings exist and may change, and it saves memory that is too small."""
    values = resolved.values
    is_cpu = plan.target.device == "cpu"
    lacks = {"any": True, "gpu": plan.lacks_device, "host": plan.lacks_ram, "cpu": is_cpu}
    return lacks[rung.saves] and all(
        key in values
        and why_ineffective(values, key) is None
        and not (keeps_given and key in resolved.keys.user)
        for key in rung.change
    )


def _engines(rung: Rung, resolved: Resolved, plan: Plan) -> list[Change]:
    """The engines of its placement, which shards for several ranks only; or that of the run."""
    same = (None, ENGINES[resolved.settings.engine.name].placement)
    is_sharded = rung.placement == _SHARDED
    if rung.placement in same or (is_sharded and plan.target.ranks == 1):
        return [{}]
    able = [e for e in ENGINES.values() if e.placement == rung.placement and not missing(e)]
    if not is_sharded:
        able.sort(key=lambda each: each.ds_config is None)  # DeepSpeed updates faster on a CPU
    return [{ENGINE: each.name} for each in able]


def first_fit(
    changes: Sequence[Change], plan_with: PlanWith, is_likely: bool = False
) -> tuple[int, Plan] | None:
    """The first of `changes` that fits; otherwise the last, which saves most. None: it does not exist.

    `is_likely`: the first is planned first, otherwise the last.
    """
    plans: dict[int, Plan] = {}
    last = len(changes) - 1

    def fits(at: int) -> bool:
        with suppress(SettingsError):  # a combination that does not exist
            plans[at] = plan_with(changes[at])
        return at in plans and plans[at].fits is not False

    if is_likely and fits(0):
        return 0, plans[0]
    if last not in plans and fits(last):
        last = next(
            (at for at in range(int(is_likely), last) if fits(at)), last
        )  # mostly an early one
    return (last, plans[last]) if last in plans else None


def taken(steps: Sequence[Step]) -> Step | None:
    """The fastest of the usual rungs that fit, otherwise the first that fits; None: none does."""
    fitting = [step for step in steps if step.plan.fits is not False]
    usual = [step for step in fitting if step.is_usual]
    return min(usual, key=lambda step: step.plan.cost, default=next(iter(fitting), None))
