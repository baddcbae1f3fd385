"""The check of each run: its plan, made beside its start, and what to do if it does not fit."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from engines.base import World
from launcher.base import environment
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, counted, render
from launcher.config import machine
from launcher.config.batching import GLOBAL, MICRO
from launcher.config.options import FORCE
from launcher.config.provenance import CLI_LAYER, Batching, Resolved, keys_of
from launcher.config.selection import without_first_weights
from launcher.plan import background, cache
from launcher.plan.background import Background, Send
from launcher.plan.target import Described, is_tight, with_own_memory
from training.logging.quantities import size
from training.resources import nvml

if TYPE_CHECKING:
    from launcher.plan.advice import Advice
    from launcher.plan.plan import Plan, Planner

WAIT_S = 2.0
"""How long a run waits for its plan, from the fork on."""
TIGHT_WAIT_S = 60.0
"""The same if weights, gradients and optimizer state take much of the memory."""
FREE = 0.03
"""The share of a memory that a run leaves free, or it is refused. `plan` and engine auto leave
twice as much: the process of a run is larger than theirs, and takes what they choose."""
BESIDE_S = 6.0
"""CPU time of the plan otherwise: it slows the first steps down."""
_CHECKPOINTING, _WORKERS = "memory.activation_checkpointing", "loader.workers"
_RETURN_FREED = "memory.return_freed"


@dataclass(frozen=True)
class Checked:
    """The run to check."""

    resolved: Resolved
    parameters: int | None
    """Of the model; None: only the model tells."""
    refuses: bool
    """A run that does not fit is refused; otherwise there is a warning."""
    nodes: int = 1


class PlanCheck:
    """The plan of a run, which rank 0 makes in a child process while it starts."""

    def __init__(self, checked: Checked, *, plans: bool, waits: bool = False) -> None:
        """To be made before any other thread exists: the rank that `plans` forks.

        A plan that an earlier start has kept is not made again.

        `waits`: no plan is made beside the training; the training waits for it.
        """
        self._checked = checked
        self._waits = waits
        self._began = time.monotonic()
        self._longest_s = min(TIGHT_WAIT_S, checked.resolved.settings.engine.timeout_s / 2)
        self._is_told = False
        self._child: Background | None = None
        self._cached: Mapping[str, Any] | None = None
        # A fork of a program that uses this one has its locks, but not its threads.
        if plans and environment.Process.is_own and background.is_possible():
            self._described = with_own_memory(
                Described(machine.detect_machine(), checked.nodes), nvml.memory_bytes
            )
            self._file = place(checked.resolved, self._described)
            self._cached = cache.read(self._file)
            if self._cached is None:
                self._child = self._fork()

    def _fork(self) -> Background | None:
        self._file_bytes = psutil.Process().memory_info().shared
        try:
            return Background(self._plan)
        except OSError as error:  # no memory or no disk for it
            print(f"this run starts without a plan: {error}", file=sys.stderr)
            return None

    def predicted_memory_bytes(self) -> dict[str, int | None] | None:
        """The peaks of the rank with the most, as `peak_memory_bytes`; None: not known by now."""
        plan = self._cached or self._message("plan", 0.0)
        return None if plan is None else plan["memory"]

    def before_model(self, world: World) -> None:
        """Refuse a run that does not fit, if its state alone needs much memory. Collective.

        Raises SettingsError on every rank.
        """
        is_tight = self._message("tight", WAIT_S)
        self._refuse(world, self._longest_s if is_tight else 0.0)

    def before_training(self, world: World) -> None:
        """Refuse a run that does not fit, if that is known by now. Collective.

        Raises SettingsError on every rank.
        """
        self._refuse(world, self._longest_s if self._waits else WAIT_S)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()

    def _plan(self, send: Send) -> None:
        """Send whether memory is tight, the plan, and what would fit. In the child."""
        from launcher.plan.plan import Tracing, open_planner

        torch.set_num_threads(1)  # those of the parent do not exist here
        resolved, described = without_first_weights(self._checked.resolved), self._described
        target = described.target(resolved)

        def note(parameters: int) -> None:
            found = is_tight(parameters, resolved.settings.engine.name, target)
            send("tight", found)
            if not (found or self._waits):
                background.limit_cpu(BESIDE_S)

        known = self._checked.parameters
        if known is not None:
            note(known)
        tracing = Tracing(measures=False, built=note, file_bytes=self._file_bytes)
        with open_planner(resolved, described, tracing) as planner:
            plan = planner.plan(resolved)
            if plan.uncompiled is not None:
                return  # it needs less
            keep(self._file, plan)
            lacks = list(_lacks(plan))
            send("plan", {"memory": _memory(plan), "lacks": lacks})
            if lacks:
                background.limit_cpu(None)
                send("fixes", [_line(found, resolved) for found in _advice(resolved, planner)])

    def _message(self, name: str, until_s: float) -> Any:
        """A message of the child, which may come until so many seconds after its start."""
        if self._child is None:
            return None
        left = self._began + until_s - time.monotonic()
        return self._child.message(name, max(left, 0.0))

    def _refuse(self, world: World, until_s: float) -> None:
        found = self._diagnostic(until_s)
        text = "" if found is None or not self._checked.refuses else json.dumps(asdict(found))
        if text := world.broadcast(text.encode()).decode():
            raise SettingsError([Diagnostic(**json.loads(text))])
        if found is not None and not self._is_told:
            self._is_told = True
            print(render([replace(found, severity="warning")]), file=sys.stderr, flush=True)

    def _diagnostic(self, until_s: float) -> Diagnostic | None:
        """The error of a run that does not fit; None: it fits, or the plan is not known."""
        plan = self._message("plan", until_s)
        if plan is None or not plan["lacks"]:
            return None
        needs = "; ".join(plan["lacks"])
        if not self._checked.refuses:
            return Diagnostic(f"this run needs more memory than there is: {needs}")
        fixes = self._message("fixes", self._longest_s) or []
        engine = self._checked.resolved.settings.engine.name
        return Diagnostic(
            f"this run needs more memory than there is: {needs}",
            allowed=f"settings that fit; for other engines than {engine} and other machines: "
            f"{PROGRAM} plan; to start anyway: {FORCE.flag}",
            fix="  or  ".join(fixes) or None,
        )


def place(resolved: Resolved, described: Described) -> Path | None:
    """The file of the cached plan."""
    return cache.place(cache.PLANS, resolved, described)


def keep(file: Path | None, plan: Plan) -> None:
    """Keep what a plan that fits predicts, for later starts of the run."""
    if not any(_lacks(plan)):
        cache.write(file, {"memory": _memory(plan)})


def changed(resolved: Resolved, sets: Sequence[str]) -> Resolved:
    """`resolved` with other batch numbers, checkpointing or loader workers.

    Raises SettingsError for other settings, which would have to be resolved again.
    """
    values = dict(text.split("=", 1) for text in sets)
    settings = resolved.settings
    numbers = resolved.batching
    micro = int(values.pop(MICRO, numbers.micro_batch))
    whole = int(values.pop(GLOBAL, numbers.global_batch))
    if (each := values.pop(_CHECKPOINTING, None)) is not None:
        memory = settings.memory.model_copy(update={"activation_checkpointing": each})
        settings = settings.model_copy(update={"memory": memory})
    if (freed := values.pop(_RETURN_FREED, None)) is not None:
        memory = settings.memory.model_copy(update={"return_freed": freed == "true"})
        settings = settings.model_copy(update={"memory": memory})
    if (compiles := values.pop("compile", None)) is not None:
        settings = settings.model_copy(update={"compile": compiles})
    if (workers := values.pop(_WORKERS, None)) is not None:
        loader = settings.loader.model_copy(update={"workers": int(workers)})
        settings = settings.model_copy(update={"loader": loader})
    if values:
        raise SettingsError.of(f"{', '.join(values)} cannot change here")
    accumulation = whole // (micro * numbers.world_size)
    batching = Batching(whole, micro, accumulation, numbers.world_size)
    return replace(resolved, settings=settings).with_batching(batching, "a plan that fits")


def _advice(resolved: Resolved, planner: Planner) -> Sequence[Advice]:
    from launcher.plan.advice import advise

    return advise(resolved, lambda sets: planner.plan(changed(resolved, sets)))


def _line(found: Advice, resolved: Resolved) -> str:
    from launcher.plan.plan import MARGIN

    sets = " ".join(f"--set {shlex.quote(each)}" for each in found.sets)
    origins = [resolved.values[key].origin for key in sorted(keys_of(found.sets))]
    typed = " ".join(dict.fromkeys(each.where for each in origins if each.layer == CLI_LAYER))
    instead = f" instead of {typed}" if typed else ""
    return f"{sets}{instead} ({'; '.join(_needs(found.plan, MARGIN).values())})"


def _memory(plan: Plan) -> Mapping[str, int | None]:
    device = None if plan.target.device == "cpu" else plan.device_bytes
    return {"device": device, "host": plan.rank_host_bytes}


def _lacks(plan: Plan) -> Iterator[str]:
    """Each kind of memory of which there is too little: what is needed, and what there is."""
    needs = _needs(plan, FREE)
    if plan.lacks_device(FREE):
        yield needs["device"]
    if plan.lacks_ram(FREE):
        yield needs["ram"]


def _needs(plan: Plan, free: float) -> dict[str, str]:
    """What is needed of each kind of memory whose size is known, and how much there is."""
    target, found = plan.target, {}
    if target.device_bytes is not None:
        found["device"] = (
            f"{size(plan.device_bytes)} of {size(target.device_bytes)} on a GPU, "
            f"of which {free:.0%} stay free"
        )
    if target.ram_bytes is not None:
        ranks = counted(target.ranks_per_node, "process")
        found["ram"] = (
            f"{size(plan.host_bytes)} of {size(target.ram_bytes)} in main memory ({ranks}), "
            f"of which {free:.0%} stay free"
        )
    return found
