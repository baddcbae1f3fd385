"""The reader of a run folder, which may come from others, or still be written to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from gearshift.launcher.base import environment
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.base.redaction import redact_values, redact_variables
from gearshift.launcher.config.render import ORIGINS
from gearshift.launcher.run_folder.run_folder import (
    EVENTS,
    METRICS,
    RESULT,
    SPLIT,
    STAGES,
    check_regular,
)
from gearshift.training.callbacks.base import Facts, Json, StepMetrics
from gearshift.training.logging.metrics import KEYS, OF_PART, OF_USAGE
from gearshift.training.storage import lines_of, open_to_read, parse_json, read_regular

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Amount = Annotated[float, Field(ge=0, le=1e18)]
_Number = float | Literal["NaN", "Infinity", "-Infinity"]


_READ = {"kind", *(KEYS.get(field.name, field.name) for field in fields(StepMetrics))}
"""Keys of a line of training; those of parts and of the machine have names of their own."""


class InvalidRecord(SettingsError):
    """A file of a run folder is not as the run wrote it, or cannot be read."""


class _Record(BaseModel):
    """What is read of a record; it may have more, such as that of another version."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Baseline(_Record):
    name: str
    value: _Number


class _Best(_Record):
    metric: str
    value: _Number
    step: _Count
    samples: _Count | None = None
    split_samples: _Count | None = None
    baseline: _Baseline | None = None


class _Method(_Record):
    name: str
    metrics: dict[str, _Number]


class _Test(_Record):
    metrics: dict[str, _Number]
    step: _Count


class _Environment(_Record):
    memory_bytes: _Count | None = None
    libraries: Json = {}


class _Stage(_Record):
    name: str
    folder: Annotated[str, Field(pattern=r"^[^/.][^/]*$")]


class _Stages(_Record):
    stages: list[_Stage]


class _Result(_Record):
    status: str
    reason: str | None = None
    steps: _Count | None = None
    epochs: _Seconds | None = None
    wall_s: _Seconds | None = None
    time_split: dict[str, _Seconds] | None = None
    best: _Best | None = None
    baselines: list[_Method] | None = None
    test: _Test | None = None
    peak_memory_bytes: dict[str, _Count | None] | None = None
    samples_per_s: _Number | None = None
    parameters: _Count | None = None
    samples: _Count | None = None
    data: Json | None = None
    environment: _Environment | None = None
    machine: dict[str, float] | None = None
    stages: list[_Stage] | None = None


class _Origin(_Record):
    layer: str = ""
    origin: str = ""
    replaced: list[Json] = []


class _TrainLine(_Record):
    """All else is an amount: of time, memory, samples; a learning rate, or what a machine uses."""

    kind: Literal["train"]
    step: _Count
    loss: _Number | None = None
    parts: dict[str, _Number] = {}
    grad_norm: _Number | None = None
    __pydantic_extra__: dict[str, _Amount | None]

    @model_validator(mode="before")
    @classmethod
    def _read(cls, line: Json) -> Json:
        """Without fields that are not read, such as those of another version."""
        return {
            key: value
            for key, value in line.items()
            if key in _READ or key.startswith(OF_PART) or key.endswith(OF_USAGE)
        }


class _EvalLine(_Record):
    kind: Literal["eval"]
    step: _Count
    split: str = "val"
    metrics: dict[str, _Number | None]


class _Event(_Record):
    time: str = ""
    kind: str
    step: _Count
    facts: Json


_ANY: TypeAdapter[Any] = TypeAdapter(Json)
EVENT = TypeAdapter(_Event)
_OF_FILES: Mapping[str, TypeAdapter[Any]] = {
    RESULT: TypeAdapter(_Result),
    STAGES: TypeAdapter(_Stages),
    ORIGINS: TypeAdapter(dict[str, _Origin]),
    EVENTS: EVENT,
}
METRICS_LINE: TypeAdapter[Any] = TypeAdapter(
    Annotated[_TrainLine | _EvalLine, Field(discriminator="kind")]
)


class RunReader:
    """Reads the files of one run folder: regular ones, of bounded size and depth, checked by type.

    `redacts`: without secrets of the environment. All methods read the disk, and raise
    InvalidRecord with the file and the key.
    """

    def __init__(self, folder: Path, *, redacts: bool = False) -> None:
        self._folder = folder
        self._redacts = redacts

    def check(self) -> Facts | None:
        """Check result.json, metrics.jsonl and the kinds of all files; gives the result.

        Raises SettingsError for a link.
        """
        check_regular(self._folder)
        result = self.result()
        for _ in self.metrics():
            pass
        return result

    def result(self) -> Facts | None:
        """result.json; None: the run has not ended."""
        return self.object(RESULT)

    def object(self, name: str, adapter: TypeAdapter[Any] | None = None) -> Json | None:
        """The JSON object in the file `name`, as the run writes it; None: there is no file."""
        path = self._folder / name
        with suppress(FileNotFoundError, NotADirectoryError), _reading(path):
            value = parsed(read_regular(path), adapter or _OF_FILES.get(name, _ANY))
            if not self._redacts:
                return value
            variables = environment.variables()
            redacted: Json = redact_values(value, lambda text: redact_variables(text, variables))
            return redacted
        return None

    def metrics(self) -> Iterator[Json]:
        """The lines of metrics.jsonl, without half a line at its end, which a kill left.

        Raises InvalidRecord at the first damaged line.
        """
        path = self._folder / METRICS
        with suppress(FileNotFoundError), _reading(path), open_to_read(path) as file:
            for number, content in enumerate(lines_of(file), start=1):
                try:
                    line = parsed(content, METRICS_LINE)
                except ValueError as error:
                    raise _damaged(path, error, number) from error
                yield line

    def lines(self, name: str, adapter: TypeAdapter[Any] = _ANY) -> Iterator[Json]:
        """The lines of another file that are as the run writes them; the others are skipped."""
        with suppress(OSError), open_to_read(self._folder / name) as file:
            for line in lines_of(file):
                with suppress(ValueError):
                    yield parsed(line.decode(errors="replace"), adapter)

    def events(self, name: str = EVENTS) -> Iterator[Json]:
        """The lines of events.jsonl, or of that of another rank: time, kind, step, facts."""
        return self.lines(name, EVENT)

    def stages(self) -> dict[str, Path]:
        """The run folder of each stage of a staged run, by name; empty: it is none."""
        with suppress(InvalidRecord):
            stages = (self.object(STAGES) or {}).get("stages", ())
            return {stage["name"]: self._folder / stage["folder"] for stage in stages}
        return {}


def validation_groups(reader: RunReader) -> str | None:
    """A digest of the groups that a run validates on; None: unknown. Reads the disk."""
    groups = (reader.object(SPLIT) or {}).get("val")
    return groups and sha256(repr(groups).encode()).hexdigest()[:16]


def parsed(content: str | bytes, adapter: TypeAdapter[Any]) -> Json:
    """The JSON in `content`, as `adapter` describes it. Raises ValueError."""
    value: Json = parse_json(content)
    adapter.validate_python(value)
    return value


def _damaged(path: Path, error: ValueError, line: int | None = None) -> InvalidRecord:
    file = shlex.quote(str(path))
    where = str(path)
    fix = f"rm {file}"
    if line is not None:
        where = f"{path}:{line}"
        fix = f"sed -i {line}d {file}"
    key = None
    reason = f"not JSON: {error}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or None
        reason = first["msg"]
    return InvalidRecord.of(
        f"{where} is damaged: {reason}", value=str(path), key=key, where=where, fix=fix
    )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what reading a file raises into InvalidRecord, except that it does not exist."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except ValueError as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise InvalidRecord.of(
            f"{path} cannot be read: {error.strerror or error}", value=str(path), where=str(path)
        ) from error
