"""Resource limits: a thread reads the machine; the run is throttled step by step, or ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

import psutil

from gearshift.training.callbacks.base import Action, Callback, Emit, Numbers, Outcome, Step
from gearshift.training.resources import memory
from gearshift.training.train_plan import TrainPlan

if TYPE_CHECKING:
    import torch

    from gearshift.training.settings import Limits

RESOURCES = ("ram", "swap", "gpu")
"""What has a limit, in percent."""
Reading = Mapping[str, float | None]
"""Use of the machine by name, as `ResourceMonitor.read`; None: no such resource, or unknown."""
# Of a device, at most, outside of an allocator: the CUDA context, buffers of NCCL and cuBLAS.
_CONTEXT_BYTES = 2**30
WARNINGS = 3
"""Readings in a row over a limit that count as a critical one."""
CALM = 10
"""Readings in a row after which a limit that is exceeded again is a new incident."""
# Throttling steps in order, with the resources they help
_HELPS = {
    Action.FREE_MEMORY: {"ram", "swap", "gpu"},
    Action.FEWER_WORKERS: {"ram", "swap"},
    Action.SMALLER_BATCH: {"ram", "swap", "gpu"},
}


class ResourceMonitor(Thread):
    """Reads this machine and a device; a thread does it regularly."""

    def __init__(self, device: torch.device, every_s: float) -> None:
        super().__init__(name="monitor", daemon=True)  # a run that fails must not wait for it
        self.new: Reading | None = None
        """The newest reading of the thread; its reader sets None."""
        self.newest: Numbers = {}
        """Use by resource, and of the GPU's time, for those that exist; `gpu` by all processes."""
        self._device = device
        self._every_s = every_s
        self._stopping = Event()

    def read(self, cpu: float | None = None) -> Reading:
        """The uses in percent.

        `ram` and `swap`: in a container, of its limit. `cpu`: as given. The others as in
        `gpu_uses`.
        """
        swap_use = None
        swap = psutil.swap_memory()
        if swap.total:
            swap_use = _of_container(swap, memory.container_swap())
        reading = {
            "ram": _of_container(psutil.virtual_memory(), memory.container_memory()),
            "swap": swap_use,
            "cpu": cpu,
            **gpu_uses(self._device),
        }
        uses = {**reading, "gpu": reading["gpu_all"]}
        del uses["gpu_all"]
        # A new mapping: other threads read it.
        self.newest = {name: use for name, use in uses.items() if use is not None}
        return reading

    def run(self) -> None:
        """Read after each interval."""
        _cpu_percent()  # psutil counts from the call before in the same thread
        while not self._stopping.wait(self._every_s):
            self.new = self.read(_cpu_percent())

    def stop(self) -> None:
        """End the thread, if it was started, and wait for the reading it takes."""
        self._stopping.set()
        if self.is_alive():
            self.join()


def _cpu_percent() -> float:
    """Use of the cores this process may use, since the call before."""
    cores = psutil.cpu_percent(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [cores[n] for n in os.sched_getaffinity(0) if n < len(cores)] or cores
    return sum(cores) / len(cores)


def _of_container(machine: Any, share: memory.Share | None) -> float:
    """The use in percent of psutil's record, or of a tighter limit."""
    if share is not None and share.limit < machine.total:
        return 100 * share.used / share.limit
    percent: float = machine.percent
    return percent


def gpu_uses(device: torch.device) -> Reading:
    """The uses of `device`, as its driver counts them; None: not NVIDIA's.

    `gpu`: of its memory, by other processes than this one: what limits.gpu limits. `gpu_all`: by
    all processes; what our allocator holds in reserve counts as free. `gpu_busy`: share of the last
    moments in which a kernel ran.
    """
    if device.type != "cuda":
        return dict.fromkeys(("gpu", "gpu_all", "gpu_busy"))
    import torch

    from gearshift.training.resources import nvml

    nvml.keep_open()
    # By its unique id: CUDA_VISIBLE_DEVICES renumbers devices.
    (state,) = nvml.gpu_states(f"GPU-{torch.cuda.get_device_properties(device).uuid}") or [None]
    if state is None:
        free, total = torch.cuda.mem_get_info(device)
        state = nvml.GpuState(total - free, total)
    reserved = torch.cuda.memory_reserved(device)
    by_others = max(0, state.used - (state.by_process or reserved + _CONTEXT_BYTES))
    in_use = state.used - reserved + torch.cuda.memory_allocated(device)
    return {
        "gpu": 100 * by_others / state.total,
        "gpu_all": 100 * in_use / state.total,
        "gpu_busy": state.busy_percent,
    }


class LimitEnforcer(Callback):
    """Compares readings of the machine with limits; one per rank, each for its own machine.

    A reading over a limit is a warning. Three in a row, or one critical value, request relief, and
    the machine is measured again after the next step: unused memory is released first, then come
    fewer workers, smaller micro-batches (once, if a value is critical), and at last the run saves
    and ends. After CALM readings under all limits the first step comes first again.

    A limit that is exceeded before the first step cannot be the run's doing: it is reported once,
    and only the critical value of that resource counts from then on.
    """

    def __init__(
        self,
        limits: Limits,
        monitor: ResourceMonitor,
        emit: Emit,
        chosen: Sequence[str] = (),
    ):
        """`emit` gets each event; `chosen`: the resources whose limits the user set."""
        self._monitor = monitor
        self._emit = emit
        self._chosen = chosen
        # None: it is no longer watched.
        self._limits: dict[str, float | None] = {}
        self._critical: dict[str, float] = {}
        for name in RESOURCES:
            self._limits[name] = getattr(limits, name)
            self._critical[name] = getattr(limits.critical, name)
        # Readings in a row over a limit, or under all of them.
        self._warnings = self._calm = 0
        # Throttling steps that are possible, and those taken since the machine was calm.
        self._left = Action.FREE_MEMORY
        self._taken = Action.NOTHING
        # The step that all ranks will take; once they have, its effect is measured.
        self._relief: Literal["requested", "taken"] | None = None

    def start(self, train_plan: TrainPlan) -> None:
        reading = self._monitor.read()
        for name in self._chosen:
            if reading[name] is None:
                text = f"limits.{name} cannot act: this machine reports no {name}"
                self._emit("warning", {"text": text})
        exceeded = _over(reading, self._limits)
        if exceeded:
            self._limits |= dict.fromkeys(exceeded)
            self._emit("limit_exceeded_at_start", {"over": exceeded, **reading})
        self._monitor.start()

    def step(self, step: Step) -> Action:
        """Check a new reading; after a throttling step, take one."""
        if self._relief == "taken":
            self._relief = None
            reading = self._monitor.read()
            over = _over(reading, self._limits) or _over(reading, self._critical)
            self._emit("relieved", {"still_over": over, **reading})
            return self._check(reading, warns=False)
        new = self._monitor.new
        self._monitor.new = None
        if new is None or self._relief:
            return Action.NOTHING
        return self._check(new, warns=True)

    def throttled(self, available: Action) -> None:
        self._left = available | Action.FREE_MEMORY
        if self._relief == "requested":
            self._relief = "taken"

    def end(self, outcome: Outcome) -> None:
        self._monitor.stop()

    def _check(self, reading: Reading, warns: bool) -> Action:
        """The throttling step that is left and helps; else the end."""
        critical = _over(reading, self._critical)
        over = [*dict.fromkeys([*_over(reading, self._limits), *critical])]
        if not over:
            self._warnings = 0
            self._calm += 1
            if self._calm >= CALM:
                self._taken = Action.NOTHING
            return Action.NOTHING

        self._warnings += 1
        self._calm = 0
        if warns:  # else the event "relieved" has the reading
            self._emit("limit_warning", {"over": over, "warnings": self._warnings, **reading})
        if not critical and self._warnings < WARNINGS:
            return Action.NOTHING
        action = self._next_relief(over, is_critical=bool(critical))
        if not action:
            self._emit("pressure", {"over": over, **reading})
            return Action.LIMIT_EXCEEDED | Action.SAVE
        if action is Action.FREE_MEMORY:
            self._emit("throttled", {"critical": critical, "over": over, **reading})
        self._taken |= action
        self._relief = "requested"
        return action

    def _next_relief(self, over: Sequence[str], is_critical: bool) -> Action:
        """The first throttling step that is left and helps a resource that is `over` its limit."""
        once = Action.FREE_MEMORY
        if is_critical:
            once |= Action.SMALLER_BATCH
        left = self._left & ~(self._taken & once)
        for action, helps in _HELPS.items():
            if action in left and helps.intersection(over):
                return action
        return Action.NOTHING


def _over(reading: Reading, limits: Mapping[str, float | None]) -> list[str]:
    names = []
    for name, limit in limits.items():
        use = reading[name]
        if limit is not None and use is not None and use > limit:
            names.append(name)
    return names
