"""Engine auto: the simplest engine whose plan fits, chosen before a run starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.engines.catalog import ENGINES, missing
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

_LIMIT_S = 300.0


def decide_engine(
    args: CliArgs, out: Path | None, described: Described, world_size: int | None = None
) -> RunPlan:
    """As `decide`, with the simplest engine that fits, if engine auto is named.

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
            return first_that_fits(_candidates(resolved, described, plan_with))
        return None  # nothing can be planned: the run will say why

    print(f"engine {AUTO}: planning", file=sys.stderr, flush=True)
    chosen = _in_child(choose)
    return decide_with(chosen) if chosen else decision  # nothing fits


def first_that_fits(candidates: Iterable[tuple[Change, Plan]]) -> Chosen | None:
    """The first candidate that fits, or whose memory is unknown; None: none fits.

    The change of each candidate names its engine, and has the settings that make it fit.
    """
    lines = []
    for change, plan in candidates:
        verdict = "does not fit" if plan.fits is False else "taken"
        needs = " ".join([change[ENGINE], plan.needs, *Chosen(change, "").changes])
        lines.append(f"{needs}: {verdict}")
        if plan.fits is not False:
            device = None if plan.target.device == "cpu" else plan.device_bytes
            peaks = {"device": device, "host": plan.rank_host_bytes}
            return Chosen(change, f"planned {plan.needs}", lines, peaks)
    return None


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
    """Engines that can run here, those with the fewest parts spread first, and their plans.

    First as the run is, then with rungs that compute the same; offload after all others. On a CPU
    nothing is gained by offload, and a single rank has nothing to spread.
    """
    target = described.target(resolved)
    engines = [engine for engine in ENGINES.values() if not missing(engine)]
    engines.sort(key=lambda engine: engine.placement.spread_parts)
    for offloads in [False] if target.device == "cpu" else [False, True]:
        plans: dict[str, Plan] = {}
        for engine in engines:
            is_useful = offloads or (engine.processes == 1) == (target.ranks == 1)
            if engine.placement.offloads != offloads or not is_useful:
                continue
            try:
                plans[engine.name] = plan_with({ENGINE: engine.name})
            except SettingsError:  # it cannot train this
                continue
            yield {ENGINE: engine.name}, plans[engine.name]
        for name, plan in plans.items():

            def plan_under(change: Change, name: str = name) -> Plan:
                return plan_with({ENGINE: name, **change})

            step = choose_step(list(climb(resolved, plan, plan_under, EXACT, keeps_user=True)))
            if step:
                yield {ENGINE: name, **step.change}, step.plan
