"""Engine auto: the fastest engine whose plan fits, chosen before a run starts."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.catalog import ENGINES, Entry, missing
from launcher.base.diagnostics import SettingsError, plain
from launcher.config import batching
from launcher.config.provenance import MACHINE_LAYER, USER_LAYERS, Chosen, CliArgs, Resolved
from launcher.config.schema import AUTO
from launcher.plan import cache
from launcher.plan.target import Described
from launcher.run_folder.resume import Decision, decide
from training.logging.quantities import size

if TYPE_CHECKING:
    from launcher.plan.plan import Plan

NAME = "engine.name"
_CHECKPOINTING = "memory.activation_checkpointing"
_HOST_SAVINGS = {"loader.workers": 0, "memory.return_freed": True}
"""Settings that save host memory: no copies of weights in forks, then a heap without holes."""
_EQUAL = 0.05
"""Estimated times that differ by less are equal."""
_LIMIT_S = 300.0


@dataclass(frozen=True)
class Candidate:
    """An engine with the settings that make it fit."""

    settings: Mapping[str, Any]
    needed_bytes: int
    limit_bytes: int | None
    fits: bool
    cost: float
    """Estimated seconds of a step, for comparing candidates only."""
    memory: Mapping[str, int | None] = field(default_factory=dict)
    """The predicted peaks of a rank by `device` and `host`."""

    @property
    def engine(self) -> str:
        """The engine."""
        return str(self.settings[NAME])

    @property
    def needs(self) -> str:
        """`oss 3.1 of 8.0 GiB`."""
        of = f" of {size(self.limit_bytes)}" if self.limit_bytes is not None else ""
        return f"{self.engine} {size(self.needed_bytes)}{of}"


Decide = Callable[[Chosen | None], Decision]
Change = Mapping[str, Any]
"""Settings by key."""
PlanWith = Callable[[Change], "Plan"]


def decide_engine(
    args: CliArgs,
    out: Path | None,
    described: Described,
    world_size: int | None = None,
    *,
    always: bool = False,
) -> Decision:
    """As `decide`, with the engine that fits and is fastest, unless one is named.

    Plans where engine auto is named, or `always`; otherwise the number of processes decides. The
    choice is cached. Reads the data and writes to the cache. Raises SettingsError.
    """

    def decide_with(chosen: Chosen | None) -> Decision:
        return decide(args, out, described.machine, world_size, chosen)

    decision = decide_with(None)
    resolved = decision.resolved
    if decision.nothing_left is not None or not is_open(resolved):
        return decision
    if not (always or is_asked(resolved)):
        return decision
    file = cache.place(resolved, described)
    chosen = _cached(file)
    if chosen is None:
        chosen = best(candidates(decide_with, described, is_thorough=always))
        if chosen is not None:
            cache.write(file, asdict(chosen))
    return decision if chosen is None else decide_with(chosen)


def is_open(resolved: Resolved) -> bool:
    """Whether no engine was named."""
    return resolved.values[NAME].origin.layer == MACHINE_LAYER


def is_asked(resolved: Resolved) -> bool:
    """Whether the user named engine auto."""
    return any(value == AUTO for value, _ in resolved.values[NAME].replaced)


def best(all_candidates: Sequence[Candidate]) -> Chosen | None:
    """The first candidate that is about as fast as the fastest; None: none fits."""
    fitting = [candidate for candidate in all_candidates if candidate.fits]
    if not fitting:
        return None
    least = min(candidate.cost for candidate in fitting)
    first = next(candidate for candidate in fitting if candidate.cost <= least * (1 + _EQUAL))
    others = [_other(first, candidate) for candidate in all_candidates]
    return Chosen(first.settings, _reason(first, all_candidates), others, first.memory)


def _reason(first: Candidate, all_candidates: Sequence[Candidate]) -> str:
    needs = first.needs.partition(" ")[2]
    tried = [candidate.needs for candidate in all_candidates if not candidate.fits]
    return f"{needs} by the plan" + (f"; too much: {', '.join(tried)}" if tried else "")


def _other(first: Candidate, other: Candidate) -> str:
    changes = "".join(f" {key}={plain(v)}" for key, v in other.settings.items() if key != NAME)
    if not other.fits:
        return f"{other.needs}{changes}: does not fit"
    again = other.cost / first.cost
    return f"{other.needs}{changes}: estimated {again:.2f} times the time"


def candidates(decide_with: Decide, described: Described, *, is_thorough: bool) -> list[Candidate]:
    """Engines that can run here with the least change that fits, in the order of preference.

    `is_thorough`: all of them. In a child process, which imports torch. Empty if nothing can be
    planned: the run will say why.
    """
    print(f"engine {AUTO}: planning, once for these settings", file=sys.stderr, flush=True)
    plan = partial(_planned, decide_with, described, is_thorough)
    return [Candidate(**facts) for facts in _in_child(plan) or ()]


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


def _planned(decide_with: Decide, described: Described, is_thorough: bool) -> list[dict[str, Any]]:
    from launcher.plan.plan import open_planner

    resolved = decide_with(None).resolved
    try:
        with open_planner(resolved, described) as planner:

            def plan_with(settings: Change) -> Plan:
                return planner.plan(decide_with(Chosen(settings, "")).resolved)

            all_candidates = _candidates(resolved, described, plan_with, is_thorough)
            return [asdict(candidate) for candidate in all_candidates]
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
        candidate = _Engine(engine.name, plan_with).least(_ladders(resolved))
        if candidate is not None:
            fits |= candidate.fits
            fits_unchanged |= candidate.fits and len(candidate.settings) == 1
            yield candidate


class _Engine:
    """Plans of one engine with more and more changes."""

    def __init__(self, name: str, plan_with: PlanWith) -> None:
        self._name = name
        self._plan_with = plan_with
        self._planned: dict[str, Candidate] = {}

    def least(self, ladders: Sequence[Sequence[Change]]) -> Candidate | None:
        """The candidate with the least change that fits, or with the most; None: no such engine.

        Each ladder saves more and more memory. The last one is for what fits by no other.
        """
        try:
            unchanged = self._candidate({})
            if unchanged.fits:
                return unchanged
            last = self.most(ladders)
            if last is None or not last.fits:
                return last
            *cheap, dear = ladders
            fitting = [candidate for candidate in map(self._first, cheap) if candidate is not None]
            return (
                min(fitting, key=lambda candidate: candidate.cost) if fitting else self._first(dear)
            )
        except SettingsError:
            return None  # it cannot train this

    def most(self, ladders: Sequence[Sequence[Change]]) -> Candidate | None:
        """The candidate with the most changes; None: no such engine."""
        try:
            return self._candidate([{}, *chain(*ladders)][-1])
        except SettingsError:
            return None  # it cannot train this

    def _first(self, changes: Sequence[Change]) -> Candidate | None:
        """The first that fits, by bisection."""
        if not changes or not self._candidate(changes[-1]).fits:
            return None
        at = bisect_left(changes, True, key=lambda change: self._candidate(change).fits)
        return self._candidate(changes[at])

    def _candidate(self, change: Change) -> Candidate:
        key = json.dumps(change, sort_keys=True)
        if key not in self._planned:
            settings = {NAME: self._name, **change}
            plan = self._plan_with(settings)
            fits = plan.fits is not False
            memory = {
                "device": None if plan.target.device == "cpu" else plan.device_bytes,
                "host": plan.rank_host_bytes,
            }
            self._planned[key] = Candidate(
                settings, plan.needed_bytes, plan.limit_bytes, fits, _cost(plan), memory
            )
        return self._planned[key]


def _engines(resolved: Resolved, described: Described) -> Iterator[Entry]:
    """Those for this number of ranks; first those with the fewest parts spread, then offloaded.

    On a CPU nothing is gained by offload, and a single rank has nothing to spread.
    """
    target = described.target(resolved)
    for engine in sorted(ENGINES.values(), key=_complexity):
        is_single = engine.processes == 1
        if engine.placement.offloads:
            is_useful = target.device != "cpu"
        else:
            is_useful = is_single == (target.ranks == 1)
        if is_useful and not missing(engine):
            yield engine


def _complexity(engine: Entry) -> tuple[bool, int]:
    return engine.placement.offloads, engine.placement.spread_parts


def _ladders(resolved: Resolved) -> list[list[Change]]:
    """Smaller micro-batches; these with recomputed activations; on a CPU less of the host's memory.

    At the same global batch, and without settings of the user.
    """

    def is_open(*keys: str) -> bool:
        return not any(resolved.values[key].origin.layer in USER_LAYERS for key in keys)

    smaller: list[Change] = []
    if is_open(batching.MICRO, batching.ACCUMULATION):
        smaller = [
            {batching.GLOBAL: numbers.global_batch, batching.MICRO: numbers.micro_batch}
            for numbers in batching.halvings(resolved.batching)
        ]
    recomputed: list[Change] = []
    if resolved.values[_CHECKPOINTING].value != "full" and is_open(_CHECKPOINTING):
        full = {_CHECKPOINTING: "full"}
        recomputed = [full, *({**change, **full} for change in smaller)]
    last: Change = [{}, *smaller, *recomputed][-1]
    frugal: list[Change] = []
    for key, value in _HOST_SAVINGS.items() if resolved.device == "cpu" else ():
        if resolved.values[key].value != value and is_open(key):
            last = {**last, key: value}
            frugal.append(last)
    return [smaller, recomputed, frugal]


@dataclass(frozen=True)
class _Speeds:
    """What a rank does in a second, roughly: only ratios between engines count."""

    flops: float
    memory_bytes: float
    sent_bytes: float
    offloaded_bytes: float
    micro_batch_s: float
    """To start the kernels of a micro-batch."""


_GPU = _Speeds(1e14, 1.5e12, 5e10, 1e10, 5e-3)
_CPU = _Speeds(3e10, 5e9, 5e8, 5e9, 1e-3)


def _cost(plan: Plan) -> float:
    """Seconds of a step: operations, the update, traffic and offload, one after the other."""
    from launcher.plan.storages import Kind

    speeds = _CPU if plan.target.device == "cpu" else _GPU
    update = 2 * (plan.device[Kind.OPTIMIZER] + plan.device[Kind.WEIGHTS])
    return (
        plan.flops / speeds.flops
        + update / speeds.memory_bytes
        + plan.sent_bytes / speeds.sent_bytes
        + 2 * plan.offloaded_bytes / speeds.offloaded_bytes
        + plan.accumulation * speeds.micro_batch_s
    )


def _cached(file: Path | None) -> Chosen | None:
    with suppress(TypeError):
        return Chosen(**(cache.read(file) or {}))
    return None
