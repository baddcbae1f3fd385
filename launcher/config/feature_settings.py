"""The settings of continual learning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from launcher.base import redaction
from launcher.base.redaction import Url
from launcher.download import names
from training.duration import Duration
from training.settings import Samples, Steps

_ON: dict[str, Any] = {"only_if": {"continual.enabled": [True]}}
Seconds = Annotated[float, Field(json_schema_extra=_ON | {"unit": "seconds"})]


class Continual(BaseModel, extra="forbid", frozen=True):
    """Continual learning: training on new files of data.path as they arrive."""

    enabled: Annotated[
        bool,
        Field(description="Watch the folder data.path after training, and train on new files."),
    ] = False
    replay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of an experience's samples that is replayed from older data.",
            json_schema_extra=_ON,
        ),
    ] = 0.5
    epochs: Annotated[
        float,
        Field(
            gt=0, description="Epochs over the new data of an experience.", json_schema_extra=_ON
        ),
    ] = 1.0
    max_steps: Annotated[
        Steps | None,
        Field(ge=1, description="Maximum steps of one experience.", json_schema_extra=_ON),
    ] = None
    lr_scale: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Peak learning rate of an experience, as a share of optim.lr.",
            json_schema_extra=_ON,
        ),
    ] = 0.3
    warmup: Annotated[
        Duration,
        Field(
            description="Learning-rate warm-up of an experience.",
            json_schema_extra=_ON,
        ),
    ] = "5%"
    min_files: Annotated[
        int,
        Field(ge=1, description="Minimum new files per experience.", json_schema_extra=_ON),
    ] = 1
    min_samples: Annotated[
        Samples,
        Field(
            ge=1, description="Minimum new training samples per experience.", json_schema_extra=_ON
        ),
    ] = 1
    check_every_s: Annotated[
        Seconds, Field(gt=0, description="Seconds between two checks for new files.")
    ] = 10.0
    settle_s: Annotated[
        Seconds,
        Field(ge=0, description="A file is complete when size and time stay unchanged this long."),
    ] = 5.0
    quiet_s: Annotated[
        Seconds | None,
        Field(gt=0, description="Stop after this long without new files; null: never."),
    ] = None
    max_hours: Annotated[
        float | None,
        Field(
            gt=0,
            description="Stop after N hours and save a checkpoint; null: never.",
            json_schema_extra=_ON,
        ),
    ] = None


LEGAL = (
    "URLs (http, https, file), such as  [https://example.org/data.zip]; or with more to say, "
    "[{url: https://…, sha256: …, name: data.zip, unpack: no, size: 1000}]"
)


def _as_url(value: Any, check: ValidatorFunctionWrapHandler) -> Url:
    url = value if isinstance(value, Url) else Url(check(value))
    if (wrong := redaction.url_problem(url.unredacted)) is not None:
        raise ValueError(wrong)
    return url


def _as_name(value: str) -> str:
    if (wrong := names.fault(value)) is not None:
        raise ValueError(wrong)
    return value


def _as_mapping(value: Any) -> Any:
    """The short form, a URL alone, in the long one."""
    return {"url": value} if isinstance(value, str) else value


class File(BaseModel, extra="forbid", frozen=True):
    """One file to fetch."""

    url: Annotated[
        str,
        WrapValidator(_as_url),
        Field(
            description="http, https or file; ${NAME} stands for a variable of the environment.",
            json_schema_extra={
                "allowed": "http, https and file, such as  https://example.org/data.zip  or "
                "file:///mnt/data.zip"
            },
        ),
    ]
    sha256: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9a-fA-F]{64}$",
            description="The checksum of the file as it is fetched.",
            json_schema_extra={"allowed": "64 hexadecimal digits, as sha256sum prints them"},
        ),
    ] = None
    name: Annotated[
        str | None,
        AfterValidator(_as_name),
        Field(
            description="What the file is called here. Default: as the URL ends.",
            json_schema_extra={"allowed": "a file name that every system takes, without a folder"},
        ),
    ] = None
    unpack: Annotated[
        Literal["auto", "no"],
        Field(description="auto: an archive becomes a folder, a compressed file itself."),
    ] = "auto"
    size: Annotated[
        int | None,
        Field(ge=0, description="Bytes of the file.", json_schema_extra={"unit": "bytes"}),
    ] = None


class Download(BaseModel, extra="forbid", frozen=True):
    """What is fetched before training."""

    fetch: Annotated[
        bool,
        Field(description="Fetch download.files before training; data.path then leads to them."),
    ] = False
    files: Annotated[
        list[Annotated[File, BeforeValidator(_as_mapping)]],
        Field(
            description="URLs of data, each as it is or with checksum, name and size.",
            json_schema_extra={"allowed": LEGAL},
        ),
    ] = []
    folder: Annotated[
        str | None,
        Field(
            description="Where to. Default: downloads/; for several files a folder of their own "
            "in there."
        ),
    ] = None
    max_gb: Annotated[
        float,
        Field(
            gt=0,
            description="The most that one file may have, as it is fetched and unpacked.",
            json_schema_extra={"unit": "10^9 bytes"},
        ),
    ] = 100.0
    retries: Annotated[
        int,
        Field(ge=0, description="How often a connection that broke is tried again, in a row."),
    ] = 5
    timeout_s: Annotated[float, Field(gt=0, description="How long a server may be silent.")] = 30.0
