"""The profiler: a trace of some steps for Perfetto, and a table of the dearest operators."""

from __future__ import annotations

import torch

from gearshift.training.callbacks.base import Callback, Emit, Outcome, Step
from gearshift.training.settings import PROFILE_WARMUP
from gearshift.training.storage import Storage, storage_errors
from gearshift.training.train_plan import TrainPlan

FOLDER = "profile"
TRACE = "trace-rank0.json.gz"
TABLE = "operators.txt"
OPERATORS = 10
"""Rows of the table."""


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
        side = "device" if self._device.type == "cuda" else "cpu"
        operators = profile.key_averages()
        table = operators.table(sort_by=f"self_{side}_time_total", row_limit=OPERATORS)
        folder = self._storage.path / FOLDER
        with storage_errors(folder / TRACE):
            folder.mkdir(exist_ok=True)
            staged = self._storage.path / f".new-{TRACE}"
            profile.export_chrome_trace(str(staged))  # the suffix decides that it is compressed
            staged.replace(folder / TRACE)
            self._storage.atomic_write(f"{FOLDER}/{TABLE}", table.encode())
        steps = self._newest - self._first + 1
        facts = {"trace": f"{FOLDER}/{TRACE}", "first_step": self._first, "steps": steps}
        self._emit("profiled", facts)
