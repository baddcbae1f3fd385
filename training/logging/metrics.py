"""The files of a run: metrics.jsonl with steps and evaluations, events.jsonl, and result.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from gearshift.training.callbacks.base import (
    Callback,
    EvalResult,
    Facts,
    Json,
    Numbers,
    Outcome,
    RunInfo,
    Step,
    StepMetrics,
)
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.storage import LineFile, Storage, storage_errors
from gearshift.training.train_plan import TrainPlan

NAME = "metrics.jsonl"
EVENTS = "events.jsonl"
RESULT = "result.json"
OF_PART = "lr."
"""Before the name of a part in the key of its learning rate."""
OF_USAGE = "_percent"
"""After the name of a resource in the key of its use."""
KEYS = {  # Fields of StepMetrics whose key differs
    "units": "tokens",
    "units_per_s": "tokens_per_s",
    "labelled": "labelled_tokens",
    "labelled_per_s": "labelled_tokens_per_s",
}
# Fields of Outcome and RunInfo that are not in result.json.
_NOT_IN_RESULT = {
    "exit_code",
    "experience",
    "fault",
    "device",
    "precision",
    "folder",
    "notes",
    "evaluated",
    "loss_changes",
}
_now = partial(datetime.now, timezone.utc)


def usage_fields(uses: Numbers) -> dict[str, float]:
    """Uses under their keys in files: `ram_percent`."""
    return {f"{name}{OF_USAGE}": round(use, 1) for name, use in uses.items()}


@dataclass
class MetricsWriter(Callback):
    """Writes metrics.jsonl into the run folder; for rank 0. Raises StorageError."""

    storage: Storage
    usage: Callable[[], Numbers] = dict
    """Gives the use of the machine by resource."""
    _file: LineFile | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """Open the file; `truncate` has removed the lines that will be written again."""
        self._file = self.storage.open_lines(NAME)

    def logged(self, line: StepMetrics) -> None:
        values: Json = {"kind": "train"}
        for name, value in vars(line).items():
            if value not in (None, {}):
                values[KEYS.get(name, name)] = value
        values["device_memory_bytes"] = line.device_memory_bytes  # null on a CPU
        for part, lr in values.pop("lrs", {}).items():
            values[f"{OF_PART}{part}"] = lr
        self._write(values | usage_fields(self.usage()))

    def evaluated(self, evaluation: EvalResult) -> None:
        values = {"kind": "eval", **vars(evaluation)}
        for name in ("is_best", "seconds", "final_s"):
            del values[name]
        self._write(values)

    def end(self, outcome: Outcome) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, line: Facts) -> None:
        assert self._file is not None, "the run has started"
        self._file.write(encode_bytes(line))


def usage_of(line: Facts) -> Numbers:
    """The uses in percent that `usage_fields` wrote into a line, by resource."""
    return {key.removesuffix(OF_USAGE): line[key] for key in line if key.endswith(OF_USAGE)}


def append_event(storage: Storage, kind: str, step: int, facts: Facts) -> None:
    """Add one line to events.jsonl while no rank writes to it. Raises StorageError."""
    storage.append_line(EVENTS, _line(_now(), kind, step, facts))


def _line(time: datetime, kind: str, step: int, facts: Facts) -> bytes:
    text = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return encode_bytes({"time": text, "kind": kind, "step": step, "facts": facts})


@dataclass
class EventsWriter(Callback):
    """Writes {"time", "kind", "step", "facts"} lines; one on every rank. Raises StorageError.

    Rank 0 writes the events that all ranks see into events.jsonl. Events of a single rank come
    through `rank_event`; the other ranks write them into events-rankN.jsonl, because two machines
    cannot safely append to one file.
    """

    storage: Storage
    rank: int = 0
    now: Callable[[], datetime] = _now
    _step: int = 0

    def start(self, train_plan: TrainPlan) -> None:
        self._step = train_plan.first_step
        self.event("started", asdict(train_plan))

    def step(self, step: Step) -> None:
        self._step = step.step

    def evaluated(self, evaluation: EvalResult) -> None:
        self.event("evaluated", asdict(evaluation))

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        self.event("saved", {"folder": folder.name, "step": step, "seconds": seconds})

    def event(self, kind: str, facts: Facts) -> None:
        """Write an event that every rank sees; rank 0 only."""
        if self.rank == 0:
            self.rank_event(kind, facts)

    def rank_event(self, kind: str, facts: Facts) -> None:
        name = EVENTS if self.rank == 0 else f"events-rank{self.rank}.jsonl"
        self.storage.append_line(name, _line(self.now(), kind, self._step, facts))

    def end(self, outcome: Outcome) -> None:
        names = ("status", "reason", "exit_code", "steps")
        self.event("stopped", {name: getattr(outcome, name) for name in names})


@dataclass
class ResultWriter(Callback):
    """Writes result.json into the run folder at the end; for rank 0."""

    about: RunInfo
    storage: Storage
    job_summary: Callable[[], Facts] = dict
    """Gives, at the end, the numbers of all generations of a job with requeues."""
    world_size: int = 1

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError."""
        content = {
            **vars(outcome),
            **vars(self.about),
            "world_size": self.world_size,
        }
        for name in _NOT_IN_RESULT:
            del content[name]
        content["requeues"] = 0
        content["lost_steps"] = None
        content |= self.job_summary()
        with storage_errors(self.storage.path / RESULT):
            self.storage.atomic_write(RESULT, encode_bytes(content, indent=2) + b"\n")
