"""The settings of continual learning and of downloads."""

from __future__ import annotations

import os
import re
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


def name_error(name: str) -> str | None:
    """Why a downloaded file cannot have this name; None if it can."""
    if _UNSAFE.search(name) or not name.isprintable():
        return 'contains one of  < > : " / \\ | ? *  or a control character'
    if not name or name != name.strip(" .") or name[0] == "-":
        return "is empty, starts with a dot or -, or ends with a dot or a blank"
    return "is too long" if len(os.fsencode(name)) > _MAX_NAME_BYTES else None


def _as_url(value: Any, check: ValidatorFunctionWrapHandler) -> Url:
    url = value if isinstance(value, Url) else Url(check(value))
    if (error := redaction.url_problem(url.unredacted)) is not None:
        raise ValueError(error)
    return url


def _as_name(value: str) -> str:
    if (error := name_error(value)) is not None:
        raise ValueError(error)
    return value


def _as_mapping(value: Any) -> Any:
    """A URL alone as the mapping that it stands for."""
    return {"url": value} if isinstance(value, str) else value


class File(BaseModel, extra="forbid", frozen=True):
    """One file to download."""

    url: Annotated[
        str,
        WrapValidator(_as_url),
        Field(
            description="http, https or file; ${NAME} is replaced by that environment variable.",
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
            description="Checksum of the downloaded file, before it is unpacked.",
            json_schema_extra={"allowed": "64 hexadecimal digits, as sha256sum prints them"},
        ),
    ] = None
    name: Annotated[
        str | None,
        AfterValidator(_as_name),
        Field(
            description="File name; default: the last part of the URL.",
            json_schema_extra={"allowed": "a file name without a folder"},
        ),
    ] = None
    unpack: Annotated[
        Literal["auto", "no"],
        Field(description="auto: an archive becomes a folder, a compressed file itself."),
    ] = "auto"
    size: Annotated[
        int | None,
        Field(ge=0, description="Size of the file.", json_schema_extra={"unit": "bytes"}),
    ] = None


class Download(BaseModel, extra="forbid", frozen=True):
    """Files to download before training."""

    fetch: Annotated[
        bool,
        Field(description="Download download.files before training; sets data.path."),
    ] = False
    files: Annotated[
        list[Annotated[File, BeforeValidator(_as_mapping)]],
        Field(
            description="URLs of data; each alone, or with checksum, name and size.",
            json_schema_extra={"allowed": ALLOWED_FILES},
        ),
    ] = []
    folder: Annotated[
        str | None,
        Field(
            description="Folder for the files; default: downloads/, several files in a "
            "subfolder of it."
        ),
    ] = None
    max_gb: Annotated[
        float,
        Field(
            gt=0,
            description="Maximum size of a file, downloaded and unpacked.",
            json_schema_extra={"unit": "10^9 bytes"},
        ),
    ] = 100.0
    retries: Annotated[
        int,
        Field(ge=0, description="Retries in a row after a broken connection."),
    ] = 5
    timeout_s: Annotated[float, Field(gt=0, description="Seconds without data before a retry.")] = (
        30.0
    )
