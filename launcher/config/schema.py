"""The tree of all settings, composed from the packages that read them."""

from __future__ import annotations

import importlib
from functools import cache
from keyword import iskeyword
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, create_model

from engines import settings as engines
from launcher.config import custom_config
from launcher.config.continual_settings import Continual
from launcher.config.download_settings import Download
from models.catalog import FAMILIES, is_custom
from training import settings as training
from training.checkpoint.settings import Save
from training.data.settings import FeatureCache, Loader
from training.resources.settings import Limits
from training.trackers.settings import LEGAL as TRACKERS
from training.trackers.settings import Track, Tracking


class Bounds(BaseModel, extra="forbid", frozen=True):
    """What a mode promises of one measure."""

    at_least: Annotated[float | None, Field(ge=0, description="Not less than this.")] = None
    at_most: Annotated[float | None, Field(ge=0, description="Not more than this.")] = None


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


class Root(BaseModel, extra="forbid", frozen=True):
    """What belongs to no section."""

    mode: Annotated[str, Field(description="How much the run may cost; see `list modes`.")] = (
        "default"
    )
    device: Annotated[
        engines.Device, Field(description="What computes; auto: the fastest there is.")
    ] = "auto"
    precision: Annotated[
        engines.Precision,
        Field(description="What is computed in; weights and optimizer state stay fp32."),
    ] = "fp32"
    compile: Annotated[
        engines.Compile,
        Field(description="torch.compile; auto: on where a GPU and a compiler make it pay."),
    ] = "auto"
    unread_settings: Annotated[
        Literal["warn", "error"], Field(description="What a setting that nothing read amounts to.")
    ] = "warn"
    promise: Annotated[
        dict[Measure, Bounds],
        Field(
            description="What `mode` claims, as a ratio to mode default; bytes as they are.",
            json_schema_extra={"allowed": f"at_least, at_most of {', '.join(get_args(Measure))}"},
        ),
    ] = {}
    stages: Annotated[
        list[str],
        Field(
            description="Stages to train one after the other, of those that the family declares."
        ),
    ] = []
    track: Annotated[
        list[Track],
        Field(
            description="Dashboards that show the run while it goes on.",
            json_schema_extra={"allowed": f"some of {TRACKERS}"},
        ),
    ] = []


class Settings(Root, extra="forbid", frozen=True):
    """All settings of one family; `settings_class` adds its `model` and `data`."""

    engine: engines.Engine = engines.Engine()
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
    download: Download = Download()


def config_of(family: str) -> Any:
    """The module with a family's Model, Data and SIZES; or what has those of a task of one's own.

    Raises SettingsError for such a task that cannot be used.
    """
    if is_custom(family):
        return custom_config.task_config(family)
    return importlib.import_module(FAMILIES[family].config)


def model_name(model: Any) -> str:
    """`FAMILY:SIZE` of the section `model`; a task of one's own may have no sizes."""
    size = getattr(model, "size", None)
    return model.family if size is None else f"{model.family}:{size}"


@cache
def settings_class(family: str) -> type[BaseModel]:
    """The whole tree for one family: frozen, refusing unknown keys."""
    config = config_of(family)
    return create_model(
        "Settings",
        __base__=Settings,
        model=(config.Model, config.Model()),
        data=(config.Data, config.Data()),
    )


def get(settings: BaseModel, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, f"{part}_" if iskeyword(part) else part)
    return value
