"""Engine auto: the fastest engine whose plan fits, chosen before a run starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.catalog import ENGINES, Entry, missing
from launcher.base import environment
from launcher.base.diagnostics import SettingsError, plain
from launcher.config.batching import MICRO, larger, may_grow
from launcher.config.provenance import MACHINE_LAYER, Batching, Chosen, CliArgs, Resolved
from launcher.config.schema import AUTO
from launcher.plan.cost import cost, start_s
from launcher.plan.ladder import ENGINE, EXACT, USUAL, Change, PlanWith, climb, taken
from launcher.plan.target import Described
from launcher.run_folder.resume import Decision
from launcher.run_folder.start import decide

if TYPE_CHECKING:
    from launcher.plan.plan import Plan

_EQUAL = 0.05
"""Estimated times that differ by less are equal."""
_LIMIT_S = 300.0


@dataclass(frozen=True)
class Candidate:
    """An engine with the settings that make it fit."""

    settings: Mapping[str, Any]
    needs: str
    """`3.1 GiB of 8.0 GiB`."""
    fits: bool
    cost: float
    """Estimated seconds of a step, for comparing candidates only."""
    memory: Mapping[str, int | None] = field(default_factory=dict)
    """The predicted peaks of a rank by `device` and `host`."""

    @property
    def engine(self) -> str:
        """The engine."""
        return str(self.settings[ENGINE])


Decide = Callable[[Chosen], Decision]


def decide_engine(
    args: CliArgs,
    out: Path | None,
    described: Described,
    world_size: int | None = None,
    *,
    always: bool = False,
    decision: Decision | None = None,
) -> Decision:
    """As `decide`, with the engine that fits and is fastest, unless one is named.

    Plans where engine auto is named, or `always`; otherwise the number of processes decides. With
    engine auto a default micro-batch on a GPU is planned too, see `with_larger_batch`. `decision`
    is that of `decide`, if the caller has it. Reads the data. Raises SettingsError.
    """

    def decide_with(chosen: Chosen | None) -> Decision:
        return decide(args, out, described.machine, world_size, chosen)

    decision = decision or decide_with(None)
    resolved = decision.resolved
    is_named = resolved.values[ENGINE].origin.layer != MACHINE_LAYER
    if decision.nothing_left is not None:
        return decision
    if not is_named and (always or is_asked(resolved)):
        chosen = best(candidates(resolved, decide_with, described, is_thorough=always))
        if chosen is not None:
            decision = decide_with(chosen)
            if chosen.changes:  # memory is tight
                return decision
    if not is_asked(resolved):
        return decision
    return replace(decision, resolved=with_larger_batch(decision.resolved, described))


def with_larger_batch(resolved: Resolved, described: Described) -> Resolved:
    """The same global batch in fewer micro-batches, where starting kernels takes most of the time.

    The largest micro-batch that fits by the plan; on a GPU of known memory, unless the user or the
    mode set another. One that computes long enough stays.
    """
    if not may_grow(resolved) or described.target(resolved).device_bytes is None:
        return resolved
    print(f"{MICRO}: planning", file=sys.stderr, flush=True)
    grown = _in_child(partial(_grown, resolved, described))
    if grown is None:
        return resolved
    numbers, needed = grown
    note = f"{MICRO}: {numbers.micro_batch} instead of {resolved.batching.micro_batch}: {needed}"
    return replace(resolved.with_batching(numbers, needed), notes=[*resolved.notes, note])


def _grown(resolved: Resolved, described: Described) -> tuple[Batching, str] | None:
    """The largest micro-batch that fits, and what it needs; None: the one that is set."""
    from launcher.plan.plan import open_planner

    try:
        with open_planner(resolved, described) as planner:
            plan = planner.plan(resolved)
            saved = start_s(plan) * (1 - 1 / plan.accumulation)
            if plan.fits is not True or saved < _EQUAL * cost(plan):
                return None
            for numbers in larger(resolved.batching):
                plan = planner.plan(resolved.with_batching(numbers, ""))
                if plan.fits is True:
                    return numbers, f"planned {plan.needs}"
    except SettingsError:
        pass
    return None


def is_asked(resolved: Resolved) -> bool:
    """Whether the user named engine auto."""
    return resolved.values[ENGINE].has_replaced(AUTO)


def best(all_candidates: Sequence[Candidate]) -> Chosen | None:
    """The first candidate that is about as fast as the fastest; None: none fits."""
    fitting = [candidate for candidate in all_candidates if candidate.fits]
    if not fitting:
        return None
    least = min(candidate.cost for candidate in fitting)
    first = next(candidate for candidate in fitting if candidate.cost <= least * (1 + _EQUAL))
    others = [_other(first, candidate) for candidate in all_candidates]
    tried = [f"{each.engine} {each.needs}" for each in all_candidates if not each.fits]
    reason = f"planned {first.needs}" + (f"; too much: {', '.join(tried)}" if tried else "")
    return Chosen(first.settings, reason, others, first.memory)


def _other(first: Candidate, other: Candidate) -> str:
    changes = "".join(f" {key}={plain(v)}" for key, v in other.settings.items() if key != ENGINE)
    if not other.fits:
        return f"{other.engine} {other.needs}{changes}: does not fit"
    again = other.cost / first.cost
    return f"{other.engine} {other.needs}{changes}: estimated {again:.2f} times the time"


def candidates(
    resolved: Resolved, decide_with: Decide, described: Described, *, is_thorough: bool
) -> list[Candidate]:
    """Engines that can run here with the least change that fits, in the order of preference.

    `is_thorough`: all of them. In a child process, which imports torch. Empty if nothing can be
    planned: the run will say why.
    """
    print(f"engine {AUTO}: planning", file=sys.stderr, flush=True)
    return _in_child(partial(_planned, resolved, decide_with, described, is_thorough)) or []


def _in_child(function: Callable[[], Any]) -> Any:
    """What `function` returns, from a fork; None if it raises an exception there or is killed.

    A fork leaves this process without torch, whose threads a rank could not inherit. The function
    is called here where processes cannot fork, or torch is imported already.
    """
    if "torch" in sys.modules or sys.platform != "linux":
        return function()
    context = multiprocessing.get_context("fork")
    results, sender = context.Pipe(duplex=False)

    def work() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        environment.hide_gpus()
        sender.send(function())

    child = context.Process(target=work, daemon=True)
    child.start()
    sender.close()
    try:
        return results.recv() if results.poll(_LIMIT_S) else None
    except EOFError:
        return None
    finally:
        child.kill()
        child.join()


def _planned(
    resolved: Resolved, decide_with: Decide, described: Described, is_thorough: bool
) -> list[Candidate]:
    from launcher.plan.plan import open_planner

    try:
        with open_planner(resolved, described) as planner:

            def plan_with(change: Change) -> Plan:
                return planner.plan(decide_with(Chosen(change, "")).resolved)

            return list(_candidates(resolved, described, plan_with, is_thorough))
    except SettingsError:
        return []


def _candidates(
    resolved: Resolved, described: Described, plan_with: PlanWith, is_thorough: bool
) -> Iterator[Candidate]:
    """`is_thorough`: also engines that cannot be faster than one that fits.

    Those that shard, if a simpler one fits unchanged, and those that offload.
    """
    fits = fits_unchanged = False
    for engine in _engines(resolved, described):
        is_slower = (fits and engine.placement.offloads) or (
            fits_unchanged and engine.shards_parameters
        )
        if is_slower and not is_thorough:
            continue
        candidate = _least(engine.name, resolved, plan_with)
        if candidate is not None:
            fits |= candidate.fits
            fits_unchanged |= candidate.fits and len(candidate.settings) == 1
            yield candidate


def _least(name: str, resolved: Resolved, plan: PlanWith) -> Candidate | None:
    """The engine with the change that fits, or with the most; None: it cannot train this."""

    def plan_with(change: Change) -> Plan:
        return plan({ENGINE: name, **change})

    try:
        change: Change = {}
        given = planned = plan_with(change)
        for rungs in (USUAL, EXACT):
            if planned.fits is False and (
                steps := list(climb(resolved, given, plan_with, rungs, keeps_given=True))
            ):
                step = taken(steps) or steps[-1]
                change, planned = step.change, step.plan
    except SettingsError:
        return None
    memory = {
        "device": None if planned.target.device == "cpu" else planned.device_bytes,
        "host": planned.rank_host_bytes,
    }
    settings, fits = {ENGINE: name, **change}, planned.fits is not False
    return Candidate(settings, planned.needs, fits, cost(planned), memory)


def _engines(resolved: Resolved, described: Described) -> Iterator[Entry]:
    """Those for this number of ranks; first those with the fewest parts spread, then offloaded.

    On a CPU nothing is gained by offload, and a single rank has nothing to spread.
    """
    target = described.target(resolved)
    for engine in sorted(
        ENGINES.values(), key=lambda each: (each.placement.offloads, each.placement.spread_parts)
    ):
        is_single = engine.processes == 1
        if engine.placement.offloads:
            is_useful = target.device != "cpu"
        else:
            is_useful = is_single == (target.ranks == 1)
        if is_useful and not missing(engine):
            yield engine
