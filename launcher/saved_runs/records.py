"""What a checkpoint records of how it was trained, compared with that of another run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.schema import DATA_PATH, PRETRAINED
from gearshift.launcher.run import surroundings
from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint.reader import Checkpoint

SETTING = "setting"
SEED = "seed"
DATA = "data"
PACKAGE = "package"
MACHINE = "machine"
THREADS = "threads"
ENGINE = "engine"
SOURCE = "source"
KINDS = (SETTING, SEED, DATA, PACKAGE, MACHINE, THREADS, ENGINE, SOURCE)
OF_SURROUNDINGS = (PACKAGE, MACHINE, THREADS, ENGINE)
"""Those that change the order of sums, and with it the last bits."""
NOT_REPLAYED = (SOURCE, PACKAGE, MACHINE)
"""Those that a replay has from here instead of from the run."""
_ENGINE_KEYS = ("engine.name", "engine.nproc")
_ELSEWHERE = (*_ENGINE_KEYS, "engine.threads", DATA_PATH, PRETRAINED, TASK_FOLDER)
"""Settings that other records tell of: threads as they were, and contents instead of paths."""
_INERT = (
    *("continual.", "download.", "engine.timeout_s", "engine.max_restarts", "engine.bind_cores"),
    *("feature_cache.", "limits.", "loader.", "log.", "promise", "report.", "save.", "stop."),
    *("track", "train.preview", "train.timing", "train.debug", "unread_settings"),
)
"""Settings that change no number of a step."""
_MACHINE_KEYS = ("device", "gpus", "cores", "system", "host")


@dataclass(frozen=True)
class RecordDifference:
    """A record of two runs that differs; None: one of them has none."""

    kind: str
    """One of KINDS."""
    key: str
    a: Any
    b: Any

    @property
    def has_origin(self) -> bool:
        """Whether the runs know where the values come from."""
        return self.kind in (SETTING, SEED) or self.key in _ENGINE_KEYS

    def describe(self, a: str, b: str) -> str:
        """`optim.lr is 0.001 in runs/a and 0.002 in runs/b`, with the origins in `a` and `b`."""
        noun = self.key if self.has_origin or self.kind == self.key else f"{self.kind} {self.key}"
        return f"{noun} is {plain(self.a)} in {a} and {plain(self.b)} in {b}"


def differences(first: Checkpoint, second: Checkpoint) -> list[RecordDifference]:
    """The records that differ, by KINDS."""
    found = []
    for kind in KINDS:
        mine = dict(_READERS[kind](first))
        theirs = dict(_READERS[kind](second))
        keys: Iterable[str] = {**mine, **theirs}
        if kind in (PACKAGE, SOURCE):  # others are loaded by some runs only
            keys = [key for key in mine if key in theirs]
        for key in keys:
            a = mine.get(key)
            b = theirs.get(key)
            if a != b:
                found.append(RecordDifference(kind, key, a, b))
    return found


def excluded(
    first: Checkpoint, second: Checkpoint, differing: Sequence[RecordDifference]
) -> list[str]:
    """The kinds that both runs record, and of which nothing differs."""
    kinds = {difference.kind for difference in differing}
    equal = []
    for kind in KINDS:
        is_recorded = any(_READERS[kind](first)) and any(_READERS[kind](second))
        if is_recorded and kind not in kinds:
            equal.append(kind)
    return equal


def threads(checkpoint: Checkpoint) -> int | None:
    """The threads of each process; None: unknown."""
    count = _surroundings(checkpoint).get("threads")
    return count if isinstance(count, int) and count > 0 else None


def _surroundings(checkpoint: Checkpoint) -> Facts:
    facts: Facts = checkpoint.facts.get(surroundings.FACT, {})
    return facts


_Records = Iterator[tuple[str, Any]]


def _settings(checkpoint: Checkpoint) -> _Records:
    for key, value in checkpoint.facts["settings"].items():
        if not key.endswith("seed") and not key.startswith(_INERT) and key not in _ELSEWHERE:
            yield key, value


def _seeds(checkpoint: Checkpoint) -> _Records:
    for key, value in checkpoint.facts["settings"].items():
        if key.endswith("seed"):
            yield key, value


def _data(checkpoint: Checkpoint) -> _Records:
    data = checkpoint.facts.get("data", {})
    yield from (data.get("files") or {}).items()
    for key in ("samples", "fingerprint", "validation"):
        if key in data:
            yield key, data[key]
    base = checkpoint.facts.get("base")
    if base:
        yield "pretrained weights", base["sha256"]


def _packages(checkpoint: Checkpoint) -> _Records:
    around = _surroundings(checkpoint)
    yield from around.get("environment", {}).get("libraries", {}).items()
    yield from checkpoint.manifest.libraries.items()
    yield from around.get("packages", {}).items()


def _machine(checkpoint: Checkpoint) -> _Records:
    around = _surroundings(checkpoint)
    if "instructions" in around:
        yield "instructions", around["instructions"]
    environment = around.get("environment", {})
    for key in _MACHINE_KEYS:
        if key in environment:
            yield key, environment[key]


def _threads(checkpoint: Checkpoint) -> _Records:
    count = threads(checkpoint)
    if count is not None:
        yield "threads", count


def _engine(checkpoint: Checkpoint) -> _Records:
    yield "engine.name", checkpoint.manifest.engine
    yield "engine.nproc", checkpoint.manifest.world_size


def _sources(checkpoint: Checkpoint) -> _Records:
    yield from _surroundings(checkpoint).get("sources", {}).items()


_READERS: dict[str, Callable[[Checkpoint], _Records]] = {
    SETTING: _settings,
    SEED: _seeds,
    DATA: _data,
    PACKAGE: _packages,
    MACHINE: _machine,
    THREADS: _threads,
    ENGINE: _engine,
    SOURCE: _sources,
}
