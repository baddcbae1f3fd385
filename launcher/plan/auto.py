"""Engine auto: the fastest engine whose plan fits, chosen before a run starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.engines.catalog import ENGINES, Entry, missing
from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import MACHINE_LAYER, Chosen, CliArgs, Resolved
from gearshift.launcher.config.schema import AUTO
from gearshift.launcher.plan.ladder import ENGINE, EXACT, Change, PlanWith, choose_step, climb
from gearshift.launcher.plan.target import Described
from gearshift.launcher.run_folder.resume_rules import decide
from gearshift.launcher.run_folder.run_plan import RunPlan

if TYPE_CHECKING:
    from gearshift.launcher.plan.plan import Plan

_EQUAL = 0.05
"""Estimated times that differ by less are equal."""
_LIMIT_S = 300.0


def decide_engine(
    args: CliArgs, out: Path | None, described: Described, world_size: int | None = None
) -> RunPlan:
    """As `decide`, with the engine that fits and is fastest, if engine auto is named.

    Otherwise the number of processes decides. Reads the data to plan. Raises SettingsError.
    """

    def decide_with(chosen: Chosen | None) -> RunPlan:
        return decide(args, out, described.machine, world_size, chosen)

    decision = decide_with(None)
    resolved = decision.resolved
    is_open = resolved.values[ENGINE].origin.layer == MACHINE_LAYER  # no resumed run has chosen it
    if decision.nothing_left is not None or ENGINE not in resolved.keys.auto or not is_open:
        return decision

    def choose() -> Chosen | None:
        from gearshift.launcher.plan.plan import open_planner

        def plan_with(change: Change) -> Plan:
            return planner.plan(decide_with(Chosen(change, "")).resolved)

        with suppress(SettingsError), open_planner(resolved, described) as planner:
            return best(list(_candidates(resolved, described, plan_with)))
        return None  # nothing can be planned: the run will say why

    print(f"engine {AUTO}: planning", file=sys.stderr, flush=True)
    chosen = _in_child(choose)
    return decide_with(chosen) if chosen else decision  # nothing fits


def best(candidates: Sequence[tuple[Change, Plan]]) -> Chosen | None:
    """The first engine that fits and is about as fast as the fastest; None: none fits.

    The change of each candidate names its engine, and has the settings that make it fit.
    """
    fitting = [candidate for candidate in candidates if candidate[1].fits is not False]
    if not fitting:
        return None
    # The estimates are too rough to prefer a later engine for less.
    most = min(plan.cost for _, plan in fitting) * (1 + _EQUAL)
    settings, first = next(candidate for candidate in fitting if candidate[1].cost <= most)
    lines = []
    for change, plan in candidates:
        needs = " ".join([change[ENGINE], plan.needs, *Chosen(change, "").changes])
        verdict = f"estimated {plan.cost / first.cost:.2f} times the time"
        lines.append(f"{needs}: {'does not fit' if plan.fits is False else verdict}")
    device = None if first.target.device == "cpu" else first.device_bytes
    peaks = {"device": device, "host": first.rank_host_bytes}
    return Chosen(settings, f"planned {first.needs}", lines, peaks)


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
        environment.variables()["CUDA_VISIBLE_DEVICES"] = ""
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


def _candidates(
    resolved: Resolved, described: Described, plan_with: PlanWith
) -> Iterator[tuple[Change, Plan]]:
    """Engines that can run here with the least change that fits, in the order of preference.

    First those with the fewest parts spread, then offloaded. On a CPU nothing is gained by offload,
    and a single rank has nothing to spread. Without those that cannot be faster than one that fits:
    those that shard, if a simpler one fits unchanged, and those that offload.
    """
    fits = False
    fits_unchanged = False
    target = described.target(resolved)

    def preference(engine: Entry) -> tuple[bool, int]:
        return engine.placement.offloads, engine.placement.spread_parts

    for engine in sorted(ENGINES.values(), key=preference):
        if engine.placement.offloads:
            is_useful = target.device != "cpu" and not fits
        else:
            is_useful = (engine.processes == 1) == (target.ranks == 1)
            if engine.shards_parameters and fits_unchanged:
                is_useful = False
        if not is_useful or missing(engine):
            continue

        def plan(change: Change, name: str = engine.name) -> Plan:
            return plan_with({ENGINE: name, **change})

        try:  # the change that fits, or the most
            change: Change = {}
            planned = plan(change)
            if planned.fits is False:
                steps = list(climb(resolved, planned, plan, EXACT, keeps_user=True))
                step = choose_step(steps) or next(reversed(steps), None)
                if step:
                    change = step.change
                    planned = step.plan
        except SettingsError:  # it cannot train this
            continue
        if planned.fits is not False:
            fits = True
            fits_unchanged = fits_unchanged or not change
        yield {ENGINE: engine.name, **change}, planned
