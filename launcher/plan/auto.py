"""Engine auto: the simplest engine whose plan fits, chosen before a run starts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.engines.catalog import ENGINES, Entry, missing
from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import MACHINE_LAYER, Chosen, CliArgs
from gearshift.launcher.config.schema import AUTO
from gearshift.launcher.plan.ladder import ENGINE
from gearshift.launcher.plan.target import Described, PlanTarget
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

        def plan_with(engine: str) -> Plan:
            return planner.plan(decide_with(Chosen(engine, "")).resolved)

        with suppress(SettingsError), open_planner(resolved, described) as planner:
            return first_that_fits(described.target(resolved), plan_with)
        return None  # nothing can be planned: the run will say why

    print(f"engine {AUTO}: planning", file=sys.stderr, flush=True)
    chosen = _in_child(choose)
    return decide_with(chosen) if chosen else decision  # nothing fits


def first_that_fits(target: PlanTarget, plan_with: Callable[[str], Plan]) -> Chosen | None:
    """The first engine that fits, or whose memory is unknown; None: none fits.

    `plan_with` plans the run with an engine. Those with the fewest parts spread come first, those
    with offload last. On a CPU nothing is gained by offload, and a single rank has nothing to
    spread.
    """

    def preference(engine: Entry) -> tuple[bool, int]:
        return engine.placement.offloads, engine.placement.spread_parts

    lines = []
    for engine in sorted(ENGINES.values(), key=preference):
        is_useful = (engine.processes == 1) == (target.ranks == 1)
        if engine.placement.offloads:
            is_useful = target.device != "cpu"
        if not is_useful or missing(engine):
            continue
        try:
            plan = plan_with(engine.name)
        except SettingsError:  # it cannot train this
            continue
        verdict = "does not fit" if plan.fits is False else "taken"
        lines.append(f"{engine.name} {plan.needs}: {verdict}")
        if plan.fits is not False:
            device = None if target.device == "cpu" else plan.device_bytes
            peaks = {"device": device, "host": plan.rank_host_bytes}
            return Chosen(engine.name, f"planned {plan.needs}", lines, peaks)
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
