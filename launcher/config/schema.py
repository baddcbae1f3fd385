"""The tree of all settings, composed from the packages that read them."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
)
from pydantic.fields import FieldInfo

from gearshift.engines import settings as engines
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base import redaction
from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.base.redaction import Url
from gearshift.launcher.config import presets
from gearshift.launcher.config.settings_file import parse_yaml_value
from gearshift.models.base import Context, Task
from gearshift.models.catalog import FAMILIES, HUB, is_custom
from gearshift.training import settings as training
from gearshift.training.settings import (
    DAY_S,
    DURATION_FORMS,
    Duration,
    FeatureCache,
    Limits,
    Loader,
    Samples,
    Save,
    Section,
    Steps,
    Track,
    Tracking,
)
from gearshift.training.settings import TRACKER_FORMS as TRACKERS

FIRST_RUN = ("language", "small")
"""The family and size of a run without --model."""
AUTO = "auto"
"""The engine that is chosen from a plan."""


_ON: dict[str, Any] = {"only_if": {"continual.enabled": [True]}}
Seconds = Annotated[float, Field(json_schema_extra=_ON | {"unit": "seconds"})]


class Continual(Section):
    """Continual learning: training on new files of data.path as they arrive."""

    enabled: bool = False
    """Watch the folder data.path after training, and train on new files."""
    replay: float = Field(default=0.5, ge=0, lt=1, json_schema_extra=_ON)
    """Share of an experience's samples that is replayed from older data."""
    epochs: float = Field(default=1.0, gt=0, le=10**6, json_schema_extra=_ON)
    """Epochs over the new data of an experience."""
    max_steps: Steps | None = Field(default=None, ge=1, json_schema_extra=_ON)
    """Maximum steps of one experience."""
    lr_scale: float = Field(default=0.3, gt=0, le=1, json_schema_extra=_ON)
    """Peak learning rate of an experience, as a share of optim.lr."""
    warmup: Duration = Field(default="5%", json_schema_extra=_ON)
    """Learning-rate warm-up of an experience."""
    min_files: int = Field(default=1, ge=1, le=10**9, json_schema_extra=_ON)
    """Minimum new files per experience."""
    min_samples: Samples = Field(default=1, ge=1, json_schema_extra=_ON)
    """Minimum new training samples per experience."""
    check_every_s: Seconds = Field(default=10.0, gt=0, le=DAY_S)
    """Seconds between two checks for new files."""
    settle_s: Seconds = Field(default=5.0, ge=0, le=DAY_S)
    """A file is complete when size and time stay unchanged this long."""
    quiet_s: Seconds | None = Field(default=None, gt=0, le=10**8)
    """Stop after this long without new files; null: never."""


ALLOWED_FILES = (
    "URLs (http, https, file), such as  [https://example.org/data.zip]; or with more keys, "
    "[{url: https://…, sha256: …, name: data.zip, unpack: no, size: 1000}]"
)


_UNSAFE = re.compile(r'[<>:"/\\|?*]+')
_MAX_NAME_BYTES = 200
"""File systems take 255; the rest is for what we append to a name."""


def safe_name(name: str) -> str:
    """`name` with unsafe characters replaced by `-`; may be empty."""
    printable = "".join(letter if letter.isprintable() else "-" for letter in name)
    return _UNSAFE.sub("-", printable).strip(" .-")[-_MAX_NAME_BYTES:]


def _as_url(value: Any, check: ValidatorFunctionWrapHandler) -> Url:
    url = value if isinstance(value, Url) else Url(check(value))
    error = redaction.url_problem(url.unredacted)
    if error is not None:
        raise ValueError(error)
    return url


def _as_name(value: str | None) -> str | None:
    """`value`, if it is the name of a file in any folder, and no option of a program."""
    if value is None:
        return None
    if not value or value != safe_name(value) or len(os.fsencode(value)) > _MAX_NAME_BYTES:
        raise ValueError("is no plain name of a file")
    return value


def _as_file(value: Any) -> Any:
    """A URL alone as the mapping that it stands for."""
    return {"url": value} if isinstance(value, str) else value


class File(Section):
    """One file to download."""

    url: Annotated[str, WrapValidator(_as_url)]
    """http, https or file; ${NAME} is replaced by that variable of download.variables."""
    sha256: Annotated[
        str | None, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{64}$")
    ] = None
    """Checksum of the downloaded file, before it is unpacked."""
    name: Annotated[str | None, AfterValidator(_as_name)] = None
    """File name; default: the last part of the URL."""
    unpack: Literal["auto", "no"] = "auto"
    """auto: an archive becomes a folder."""
    size: int | None = Field(default=None, ge=0, le=10**18, json_schema_extra={"unit": "bytes"})
    """Size of the file."""


class Report(Section):
    """The report of a run."""

    enabled: bool = True
    """Write report.html at the end of a run."""


_DECLARED: dict[str, Any] = {"unless": {"download.files": [[]]}}


class Download(Section):
    """Files to download before training."""

    fetch: bool = False
    """Download download.files before training; sets data.path. Only the command line can set it."""
    files: list[Annotated[File, BeforeValidator(_as_file)]] = Field(
        default_factory=list, json_schema_extra={"allowed": ALLOWED_FILES}
    )
    """URLs of data; each alone, or with checksum, name and size."""
    variables: list[str] = Field(default_factory=list, json_schema_extra=_DECLARED)
    """Environment variables that URLs may use, as ${NAME}; only the command line can set it."""
    folder: str | None = Field(default=None, json_schema_extra=_DECLARED)
    """Folder for the files; default: downloads/, several files in a subfolder of it. Only the
    command line can set one elsewhere."""
    max_gb: float = Field(
        default=100.0, gt=0, le=10**6, json_schema_extra={**_DECLARED, "unit": "10^9 bytes"}
    )
    """Maximum size of a file, downloaded and unpacked."""
    retries: int = Field(default=5, ge=0, le=1000, json_schema_extra=_DECLARED)
    """Retries in a row after a broken connection."""
    timeout_s: float = Field(default=30.0, gt=0, le=DAY_S, json_schema_extra=_DECLARED)
    """Seconds without data before a retry."""


class Bounds(engines.EngineSection):
    """What a mode promises of one measure."""

    at_least: float | None = Field(default=None, ge=0)
    """Not less than this."""
    at_most: float | None = Field(default=None, ge=0)
    """Not more than this."""
    sizes: list[str] | None = None
    """Only where mode default trains one of these sizes, and a mode for a smaller one chooses it;
    None: any."""
    device: Literal["gpu"] | None = None
    """Only on a GPU; None: on a CPU, too."""


Measure = Literal[
    "epoch_time",
    "step_time",
    "total_time",
    "samples_per_s",
    "units_per_s",
    "time_to_metric",
    "peak_memory",
    "device_peak",
    "host_peak",
    "parameters",
    "samples",
    "global_batch",
    "metric",
    "device_peak_bytes",
    "host_peak_bytes",
]

_BOUNDS_KEYS = ", ".join(Bounds.model_fields)


class Root(engines.EngineSection):
    """What belongs to no section."""

    mode: str = "default"
    """Training mode; see `list modes`."""
    device: engines.Device = "auto"
    """Device; auto: the fastest available."""
    precision: engines.Precision = "auto"
    """Compute precision; weights and optimizer state stay fp32. auto: bf16 on GPUs that have it,
    fp16 with loss scaling on older NVIDIA GPUs."""
    compile: engines.Compile = "auto"
    """torch.compile; auto: on with an NVIDIA or AMD GPU, triton, a C compiler and Python.h; where
    the compilation fails, the model runs without it. graphs: on, and what has fixed shapes is
    replayed as CUDA graphs, one launch for all kernels of a block."""
    unread_settings: Literal["warn", "error"] = "warn"
    """Severity of unused settings."""
    promise: dict[Measure, Bounds | None] = Field(
        default_factory=dict,
        json_schema_extra={"allowed": f"{_BOUNDS_KEYS} of {', '.join(get_args(Measure))}"},
    )
    """Promises of the mode, as ratios to mode default; memory in bytes. null withdraws one."""
    stages: list[str] = Field(default_factory=list)
    """Stages of the model family to train, in order."""
    track: list[Track] = Field(
        default_factory=list, json_schema_extra={"allowed": f"some of {TRACKERS}"}
    )
    """Experiment trackers."""


class Settings(Root):
    """All settings of one family; `settings_class` adds its `model` and `data`."""

    engine: engines.EngineSettings = engines.EngineSettings()
    memory: engines.Memory = engines.Memory()
    train: training.Train = training.Train()
    optim: training.Optim = training.Optim()
    schedule: training.Schedule = training.Schedule()
    loader: Loader = Loader()
    feature_cache: FeatureCache = FeatureCache()
    eval: training.Eval = training.Eval()
    stop: training.Stop = training.Stop()
    save: Save = Save()
    log: training.Log = training.Log()
    limits: Limits = Limits()
    tracking: Tracking = Tracking()
    continual: Continual = Continual()
    report: Report = Report()
    download: Download = Download()


def config_of(family: str) -> Any:
    """The module with a family's Model, Data, SIZES and stages, or the same of a custom task.

    Raises SettingsError for such a task that cannot be used.
    """
    if is_custom(family):
        from gearshift.launcher.config import custom_task  # for the runs that train one

        return custom_task.declared(family)
    return importlib.import_module(FAMILIES[family].config)


def task_class(family: str) -> Callable[[Any, Any, Context], Task]:
    """What builds the task from the sections `model` and `data`, and a context. Imports torch.

    Raises SettingsError if a custom task cannot be used.
    """
    if is_custom(family):
        from gearshift.launcher.config import custom_task  # for the runs that train one

        return custom_task.load_task_class(family)
    module, _, name = FAMILIES[family].task.partition(":")
    built: Callable[[Any, Any, Context], Task] = getattr(importlib.import_module(module), name)
    return built


def task_with_data(settings: Any, folder: Path, *, estimates: bool = False) -> Task:
    """The task of `settings` on the CPU, with its data; it saves files in `folder`.

    `estimates`: see Context. Imports torch, and reads the data. Raises SettingsError and DataError.
    """
    import torch

    from gearshift.training.checkpoint.reader import CheckpointWeights
    from gearshift.training.storage import write_file

    context = Context(
        settings.train.seed,
        settings.eval.share,
        folder,
        torch.device("cpu"),
        open_checkpoint=CheckpointWeights,
        write_file=write_file,
        estimates=estimates,
    )
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    task.setup()
    return task


DATA_PATH = "data.path"
PRETRAINED = "model.pretrained"
"""The setting with a pretrained model, in the families that have one: a folder, or of the hub."""


def model_name(model: Any) -> str:
    """`FAMILY:SIZE` or `FAMILY:FOLDER` of the section `model`; a custom task may have no sizes."""
    size = getattr(model, "size", None)
    part = model_part(model.family, size, getattr(model, "pretrained", None))
    return f"{model.family}:{part}" if part else str(model.family)


def model_part(family: str, size: str | None, pretrained: str | None) -> str | None:
    """The size; or the name of the folder `pretrained` as part of a file name, if it replaces it.

    None: neither.
    """
    if not replaces_size(family, pretrained):
        return size
    path = str(pretrained)
    if path.startswith(HUB):
        path = path.removeprefix(HUB).partition("@")[0]
    name = os.path.basename(os.path.abspath(os.path.expanduser(path)))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "pretrained"


def replaces_size(family: str, pretrained: str | None) -> bool:
    """Whether the folder `pretrained` replaces the sizes of the family."""
    size = setting_infos(family).get("model.size")
    return pretrained is not None and size is not None and PRETRAINED in size.only_if


def settings_class(family: str) -> type[BaseModel]:
    """The whole tree for one family: frozen, refusing unknown keys."""
    return _settings_class(config_of(family))


@cache
def _settings_class(config: Any) -> type[BaseModel]:
    sections: dict[str, Any] = {
        "model": (config.Model, config.Model()),
        "data": (config.Data, config.Data()),
    }
    return create_model("Settings", __base__=Settings, **sections)


@dataclass(frozen=True)
class SettingInfo:
    """What is known of one setting."""

    key: str
    type: str
    """`whole number`, `number`, `text`, `one of`, `true or false`, `length`, ..."""
    default: Any
    allowed: tuple[str, ...] | str | None
    """The options, or a description of the forms; None: anything of the type and range."""
    range: str | None
    """`at least 1`, `above 0, below 1`."""
    unit: str | None
    description: str
    nullable: bool
    only_if: Mapping[str, list[Any]] = field(default_factory=dict)
    """Means nothing unless each of these settings has one of the values."""
    unless: Mapping[str, list[Any]] = field(default_factory=dict)
    """Means nothing where one of these settings has one of the values."""
    bounds: Mapping[str, float] = field(default_factory=dict)


def is_known(info: SettingInfo, value: Any) -> bool:
    """Whether a value that the types accept is one of the table, if there is one."""
    return not isinstance(info.allowed, tuple) or value is None or value in info.allowed


def read_text(info: SettingInfo, text: str) -> Any:
    """The value of a typed `text`: as typed if the setting is a text, else as in YAML.

    The brackets of a list of texts may be left out. Raises Unreadable.
    """
    is_list = text.startswith("[")
    if info.type in ("text", "one of") or (info.type == TEXTS and not is_list):
        return None if info.nullable and text in ("null", "~") else text
    if info.type == "list of texts" and not is_list:
        if redaction.redact(text) != text:  # a comma may be of the secret
            return [text]
        return [item.strip() for item in text.split(",")]
    return parse_yaml_value(text)


def setting_infos(family: str) -> dict[str, SettingInfo]:
    """Every setting of a family by its dotted key, in the order of declaration."""
    return _setting_infos(config_of(family), family)


@cache
def _setting_infos(config: Any, family: str) -> dict[str, SettingInfo]:
    infos = {info.key: info for info in _infos(_settings_class(config), "")}
    # Names of tables, which no type has.
    names = {
        "mode": presets.modes(),
        "engine.name": (*ENGINES, AUTO),
        "model.family": tuple(dict.fromkeys((*FAMILIES, family))),
        "model.size": tuple(config.SIZES),
    }
    for key, allowed in names.items():
        if key in infos:
            infos[key] = replace(infos[key], type="one of", allowed=allowed)
    return infos


def sections(family: str) -> set[str]:
    """The dotted keys that hold other keys."""
    return {key[:at] for key in setting_infos(family) for at in range(len(key)) if key[at] == "."}


def _infos(model: Any, prefix: str) -> Iterator[SettingInfo]:
    for name, info in model.model_fields.items():
        kind: Any = info.annotation
        # In Python 3.10 list[float] passes for a class.
        if isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel):
            yield from _infos(kind, f"{prefix}{name}.")
        else:
            yield _info(prefix + (info.alias or name), info)


TEXTS = "text or list of texts"
"""The type of a setting that is a text or several."""
_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _info(key: str, info: FieldInfo) -> SettingInfo:
    """What a field of the schema says of a setting."""
    types: list[Any] = []
    extra: dict[str, Any] = {}
    bounds: dict[str, float] = {}
    for part in (*_parts(info.annotation), info):
        if not isinstance(part, FieldInfo):
            types.append(part)
            continue
        if isinstance(part.json_schema_extra, dict):
            extra |= part.json_schema_extra
        for mark in part.metadata:
            bounds |= {name: getattr(mark, name) for name in _BOUNDS if hasattr(mark, name)}
    nullable = NoneType in types
    types = [kind for kind in types if kind is not NoneType]
    first = types[0]
    allowed = extra.get("allowed")
    word = _TYPES.get(first, "mapping")
    if set(types) == {int, str}:
        word = "length"
        allowed = DURATION_FORMS
    elif types == [str, list[str]]:
        word = TEXTS
    elif get_origin(first) is Literal:
        word = "word or list of whole numbers"
        if len(types) == 1:
            word = "one of"
            allowed = get_args(first)
    elif get_origin(first) is list:
        item = next(_parts(get_args(first)[0]))
        word = f"list of {_TYPES.get(item, 'mapping')}s"
    limits = [f"{_BOUNDS[name]} {plain(bounds[name])}" for name in _BOUNDS if name in bounds]
    return SettingInfo(
        key=key,
        type=word,
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        allowed=allowed,
        range=", ".join(limits) or None,
        unit=extra.get("unit") or ("seconds" if key.endswith("_s") else None),
        description=(info.description or "").replace("\n", " "),
        nullable=nullable,
        only_if=extra.get("only_if", {}),
        unless=extra.get("unless", {}),
        bounds=bounds,
    )


def _parts(annotation: Any) -> Iterator[Any]:
    """The types of an annotation, and what is said of them and of the items of a list."""
    is_union = get_origin(annotation) in (Union, UnionType, Annotated)
    if not is_union and (isinstance(annotation, type | FieldInfo) or get_origin(annotation)):
        yield annotation
    for item in get_args(annotation):
        for part in _parts(item):
            if is_union or isinstance(part, FieldInfo):
                yield part
