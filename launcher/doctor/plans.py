"""Which engines fit in which modes, and the largest language model, by plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from launcher.base.diagnostics import SettingsError
from launcher.base.ending import temporary_folder
from launcher.config.provenance import CliArgs
from launcher.config.schema import config_of
from launcher.plan import auto, background
from launcher.plan.background import Background, Send
from launcher.plan.check import changed
from launcher.plan.plan import Plan, Planner, Tracing, open_planner
from launcher.plan.target import Described, with_own_memory
from launcher.stages.planned import PlannedRun, planned_runs
from training.logging.quantities import size
from training.resources import nvml

FAMILY = "language"
"""The family whose largest size is searched."""
_MOST_PROCESSES = 4
_LIMIT_S = 600.0
_STATE_BYTES = 12
"""Of a parameter: its weight and two moments in fp32."""
Job = Callable[[], Any]


@dataclass(frozen=True)
class Cell:
    """The plan of a model under an engine in a mode, or why there is none."""

    fits: bool | None
    """None: it is unknown."""
    needed_bytes: int | None = None
    """Of the memory that decides; of stages the most."""
    limit_bytes: int | None = None
    why_not: str | None = None
    """Why it cannot run here."""

    @property
    def text(self) -> str:
        """`fits`, `no`; `–` if it cannot run, `?` if the memory of this machine is unknown."""
        if self.why_not is not None:
            return "–"
        return "?" if self.fits is None else "fits" if self.fits else "no"

    @property
    def reason(self) -> str | None:
        """Why it is not `fits`; None: it is."""
        if self.why_not is not None:
            return f"cannot run here: {self.why_not}"
        if self.fits or self.needed_bytes is None:
            return None
        if self.limit_bytes is None:
            return f"needs {size(self.needed_bytes)}; the memory of this machine is unknown"
        return f"does not fit: {size(self.needed_bytes)} of {size(self.limit_bytes)}"


class Plans:
    """Plans made in child processes of low priority, begun at once."""

    def __init__(
        self, model: str, modes: Sequence[str], engines: Sequence[str], described: Described
    ) -> None:
        """To be made before other threads exist, and before torch uses a GPU."""
        shared = psutil.Process().memory_info().shared if background.is_possible() else None
        tracing = Tracing(file_bytes=shared)
        count = min(described.machine.cores, _MOST_PROCESSES)
        jobs: dict[str, Job] = {
            mode: partial(plan_mode, model, mode, engines, described, tracing) for mode in modes
        }
        largest: dict[str, Job] = {FAMILY: partial(largest_size, described)}
        # It takes longest; where memory is short it may end its process, and then comes last.
        self._jobs = largest | jobs if count > 1 else jobs | largest
        self._modes, self._engines = modes, engines
        self._files = ExitStack()
        claims = self._files.enter_context(temporary_folder("gearshift-doctor-"))
        self._children: list[Background] = []
        if background.is_possible():
            work = partial(_work, self._jobs, claims)
            self._children += [Background(work) for _ in range(count)]

    def modes(self) -> Iterator[tuple[str, Mapping[str, Cell]]]:
        """The cells of each mode by engine, as they come."""
        for mode in self._modes:
            found = self._result(mode)
            if found is None:  # killed, or out of its share of memory
                yield mode, {name: Cell(None, why_not="planning failed") for name in self._engines}
            else:
                yield mode, {engine: Cell(**facts) for engine, facts in found.items()}

    def largest(self) -> str | None:
        """The largest size of the language model that fits; None: none does."""
        found: str | None = self._result(FAMILY)
        return found

    def close(self) -> None:
        """End the child processes."""
        for child in self._children:
            child.close()
        self._files.close()

    def _result(self, name: str) -> Any:
        if not self._children:
            return self._jobs[name]()
        # A child without the result ends once all jobs are claimed.
        results = (child.message(name, _LIMIT_S) for child in self._children)
        return next((found for found in results if found is not None), None)


def _work(jobs: Mapping[str, Job], claims: Path, send: Send) -> None:
    """Do the jobs that no other child has claimed, by a file in the folder `claims`."""
    torch.set_num_threads(1)  # those of the parent do not exist here
    for name, job in jobs.items():
        try:
            (claims / name).touch(exist_ok=False)
        except FileExistsError:
            continue
        send(name, job())


def plan_mode(
    model: str, mode: str, engines: Sequence[str], described: Described, tracing: Tracing
) -> dict[str, dict[str, Any]]:
    """The cells of one mode by engine, as JSON. Their plans share data and traces."""
    described = with_own_memory(described, nvml.memory_bytes)
    found = {}
    with ExitStack() as stack:
        planners: list[Planner] = []  # of each stage
        for engine in engines:
            args = CliArgs(model=model, mode=mode, engine=engine)
            try:
                runs = planned_runs(described, args, [])
                for run in runs[len(planners) :]:
                    opened = open_planner(run.resolved, described, tracing)
                    planners.append(stack.enter_context(opened))
                plans = [_plan(planner, run) for planner, run in zip(planners, runs, strict=True)]
                cell = _cell(plans)
            except SettingsError as error:
                cell = Cell(None, why_not=error.diagnostics[0].message)
            found[engine] = asdict(cell)
    return found


def _plan(planner: Planner, run: PlannedRun) -> Plan:
    """The plan without compiling, which is quick and needs more; compiled if that is too much."""
    if run.resolved.settings.compile != "on":
        return planner.plan(run.resolved)
    quick = planner.plan(changed(run.resolved, ["compile=off"]))
    return planner.plan(run.resolved) if quick.fits is False else quick


def _cell(plans: Sequence[Plan]) -> Cell:
    most = max(plans, key=lambda plan: (plan.fits is False, plan.needed_bytes))
    fits = None if any(plan.fits is None for plan in plans) else True
    return Cell(False if most.fits is False else fits, most.needed_bytes, most.limit_bytes)


def largest_size(described: Described) -> str | None:
    """The largest size of the language model that engine auto makes fit; None: none."""
    described = with_own_memory(described, nvml.memory_bytes)
    sizes = sorted(config_of(FAMILY).SIZES.items(), key=lambda item: -item[1].parameters)
    # From above: each plan takes seconds, and the first size whose state fits is often the one.
    fitting = (
        name
        for name, one in sizes
        if _may_fit(one.parameters, described)
        and auto.can_fit(CliArgs(model=f"{FAMILY}:{name}"), described)
    )
    return next(fitting, None)


def _may_fit(parameters: int, described: Described) -> bool:
    """Whether weights and optimizer state alone fit, spread over all memory of this machine."""
    machine = described.machine
    if machine.ram_bytes is None or (machine.gpus and described.device_bytes is None):
        return True
    return _STATE_BYTES * parameters <= machine.ram_bytes + machine.gpus * (
        described.device_bytes or 0
    )
