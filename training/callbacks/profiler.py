"""The profiler: a trace of some steps for Perfetto, and a summary of the dearest operators."""

from __future__ import annotations

import json

import torch

from gearshift.training.callbacks.base import Callback, Emit, Json, Outcome, Step
from gearshift.training.settings import PROFILE_WARMUP
from gearshift.training.storage import Storage, storage_errors
from gearshift.training.train_plan import TrainPlan

FOLDER = "profile"
TRACE = "trace-rank0.json.gz"
SUMMARY = "summary.json"
OPERATORS = 10
_S = 1e-6  # The profiler counts microseconds


class Profiler(Callback):
    """Profiles `steps` steps of this process after PROFILE_WARMUP others; for rank 0.

    Touches the disk, and raises StorageError. A run that fails before the last of them has no
    profile, as its trace would lack the step that failed.
    """

    def __init__(self, steps: int, storage: Storage, device: torch.device, emit: Emit) -> None:
        """`emit` gets the event "profiled"."""
        self._steps = steps
        self._storage = storage
        self._device = device
        self._emit = emit
        self._profile: torch.profiler.profile | None = None
        self._first = self._newest = 0

    def start(self, train_plan: TrainPlan) -> None:
        self._first = train_plan.first_step + PROFILE_WARMUP + 1

    def step(self, step: Step) -> None:
        """Start after the warm-up, and write the profile after the last profiled step."""
        self._newest = step.step
        if step.step == self._first - 1:
            activities = [torch.profiler.ProfilerActivity.CPU]
            if self._device.type == "cuda":
                activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._profile = torch.profiler.profile(activities=activities, profile_memory=True)
            self._profile.start()
        elif self._profile is not None and step.step == self._first + self._steps - 1:
            self._write(self._profile)

    def end(self, outcome: Outcome) -> None:
        if self._profile is None:
            return
        if outcome.status == "failed" or self._newest < self._first:
            self._profile.stop()
        else:
            self._write(self._profile)

    def _write(self, profile: torch.profiler.profile) -> None:
        self._profile = None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the trace gets kernels that have ended
        profile.stop()
        count = self._newest - self._first + 1
        facts = {
            "trace": f"{FOLDER}/{TRACE}",
            "first_step": self._first,
            "steps": count,
        }
        content = {**facts, "operators": _operators(profile)}
        folder = self._storage.path / FOLDER
        with storage_errors(folder / TRACE):
            folder.mkdir(exist_ok=True)
            staged = self._storage.path / f".new-{TRACE}"
            profile.export_chrome_trace(str(staged))  # the suffix decides that it is compressed
            staged.replace(folder / TRACE)
            summary = json.dumps(content, indent=2).encode() + b"\n"
            self._storage.atomic_write(f"{FOLDER}/{SUMMARY}", summary)
        self._emit("profiled", facts)


def _operators(profile: torch.profiler.profile) -> list[Json]:
    """The OPERATORS dearest operators: by their own time on the device, then on the CPU."""
    operators = sorted(
        profile.key_averages(),
        key=lambda o: (o.self_device_time_total, o.self_cpu_time_total),
        reverse=True,
    )
    rows = []
    for operator in operators[:OPERATORS]:
        rows.append(
            {
                "name": operator.key,
                "calls": operator.count,
                "self_cpu_s": operator.self_cpu_time_total * _S,
                "self_device_s": operator.self_device_time_total * _S,
                "self_cpu_memory_bytes": operator.self_cpu_memory_usage,
                "self_device_memory_bytes": operator.self_device_memory_usage,
            }
        )
    return rows
