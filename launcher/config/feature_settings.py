"""The settings of continual learning, of reports and of downloads."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from launcher.base import redaction
from launcher.base.redaction import Url
from training.duration import Duration
from training.settings import DAY_S, Samples, Section, Steps

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
    max_hours: float | None = Field(default=None, gt=0, le=10**5, json_schema_extra=_ON)
    """Stop after N hours and save a checkpoint; null: never."""


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
    if (error := redaction.url_problem(url.unredacted)) is not None:
        raise ValueError(error)
    return url


def _as_name(value: str | None) -> str | None:
    """`value`, if it is the name of a file in any folder, and no option of a program."""
    if value is not None and (
        not value or value != safe_name(value) or len(os.fsencode(value)) > _MAX_NAME_BYTES
    ):
        raise ValueError("is no plain name of a file")
    return value


def _as_file(value: Any) -> Any:
    """A URL alone as the mapping that it stands for."""
    return {"url": value} if isinstance(value, str) else value


class File(Section):
    """One file to download."""

    url: Annotated[str, WrapValidator(_as_url)]
    """http, https or file; ${NAME} is replaced by that variable of download.variables."""
    sha256: Annotated[str | None, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{64}$")] = None
    """Checksum of the downloaded file, before it is unpacked."""
    name: Annotated[str | None, AfterValidator(_as_name)] = None
    """File name; default: the last part of the URL."""
    unpack: Literal["auto", "no"] = "auto"
    """auto: an archive becomes a folder, a compressed file itself."""
    size: int | None = Field(default=None, ge=0, le=10**18, json_schema_extra={"unit": "bytes"})
    """Size of the file."""


class Report(Section):
    """The report of a run."""

    enabled: bool = True
    """Write report.html at the end of a run."""


class Download(Section):
    """Files to download before training."""

    fetch: bool = False
    """Download download.files before training; sets data.path."""
    files: list[Annotated[File, BeforeValidator(_as_file)]] = Field(
        default_factory=list, json_schema_extra={"allowed": ALLOWED_FILES}
    )
    """URLs of data; each alone, or with checksum, name and size."""
    variables: list[str] = Field(default_factory=list)
    """Environment variables that URLs may use, as ${NAME}; only the command line can set it."""
    folder: str | None = None
    """Folder for the files; default: downloads/, several files in a subfolder of it."""
    max_gb: float = Field(default=100.0, gt=0, le=10**6, json_schema_extra={"unit": "10^9 bytes"})
    """Maximum size of a file, downloaded and unpacked."""
    retries: int = Field(default=5, ge=0, le=1000)
    """Retries in a row after a broken connection."""
    timeout_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """Seconds without data before a retry."""
