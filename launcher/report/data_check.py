"""Inspection of data: the families that read it, its format, facts, splits, sample and page."""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from gearshift.launcher.base import disk, environment, temporary
from gearshift.launcher.base.diagnostics import SettingsError, counted, nearest_match
from gearshift.launcher.config.command_line import OPTIONS, TRAINING
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import config_of, model_name, task_with_data
from gearshift.launcher.config.settings_file import nearest_file
from gearshift.launcher.report import page
from gearshift.launcher.run import affinity
from gearshift.models.base import DataError, Picture, SamplePart
from gearshift.models.catalog import FAMILIES, is_custom
from gearshift.models.common.data_files import check_kind
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.storage import atomic_write

DEFAULT_FOLDER = Path("data-check")
PAGE = "data.html"
SHOWN = 600
"""Characters of each part of a sample."""
_TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class Findings:
    """The result of an inspection."""

    path: str
    model: str
    """The family and size, or the custom task, that read the data."""
    format: str | None
    facts: Facts
    """Facts that the task reports about its data."""
    overlapping_groups: Sequence[str] | None
    """Groups in two splits: an error. None: the task has no groups to compare."""
    sample: Facts
    """Axes and type of each tensor in a batch of one sample."""
    text: Sequence[SamplePart]
    """That sample as text; empty: it is not text."""
    pictures: Sequence[Picture]


def inspect(path: str, format: str | None, resolved: Resolved) -> Findings:
    """Set up the task and inspect its data; imports torch, and reads the data.

    Files of the task go into a temporary folder. Raises SettingsError if the data cannot be used.
    """
    affinity.limit_spinning(environment.variables())  # before torch is imported
    from gearshift.models.base import HasPictures, HasSampleText
    from gearshift.models.common.split import overlapping_groups
    from gearshift.training.data.samples import Samples
    from gearshift.training.inspection import shapes

    settings = resolved.settings
    with temporary.temporary_folder("gearshift-data-") as folder:
        try:
            task = task_with_data(settings, folder)
            first = Samples(task, task.data("train"), settings.train.seed)[0, [0]]
            if isinstance(first, DataError):
                raise first
            tensors = shapes(first.batch)
            return Findings(
                path=path,
                model=model_name(settings.model),
                format=format,
                facts=task.facts(),
                overlapping_groups=overlapping_groups(folder),
                sample={name: text for name, text in tensors.items() if "[" in str(text)},
                text=task.sample_text() if isinstance(task, HasSampleText) else (),
                pictures=task.pictures() if isinstance(task, HasPictures) else (),
            )
        except DataError as error:
            # This command takes --set, not the options of a run: --seq-len 64.
            fix = error.fix
            for option in OPTIONS:
                if option.group == TRAINING and option.key:
                    fix = re.sub(rf"{option.flag} (\S+)", rf"--set {option.key}=\1", fix)
            raise about_data(error, value=path, fix=fix or None) from error


def find_families(path: str, family: str | None, origin: str) -> list[tuple[str, str | None]]:
    """The families that may read the data at `path`, each with one of its FORMATS. Reads the disk.

    Only `family`, if it is given. A format is recognized by names or a few bytes, so several
    families may match; it is None of embedded data and of a given family, whose own error is more
    precise. Raises SettingsError if none matches; `origin` is the command that names the path.
    """

    refused = partial(SettingsError.of, value=path, where=origin)
    formats: Json = {
        name: None if is_custom(name) else import_module(FAMILIES[name].formats)
        for name in ([family] if family else FAMILIES)
    }
    if path.startswith(EMBEDDED):
        owners = {}
        for name, module in formats.items():
            owners.update(dict.fromkeys(_embedded(name, module), name))
        if path in owners:
            return [(owners[path], None)]
        nearest = nearest_match(path, owners)
        raise refused(
            f"unknown embedded data '{path}'",
            allowed=", ".join(owners) or "a file or a folder",
            did_you_mean=nearest,
            fix=nearest,
            replaces=(path,),
        )

    location = Path(path).expanduser()
    try:
        if not location.exists():
            nearest = nearest_file(path)
            raise refused(
                f"file or folder '{path}' does not exist",
                did_you_mean=nearest,
                fix=nearest and shlex.quote(nearest),
                replaces=(path,),
            )
        # A pipe or a device would block whoever opens it.
        check_kind(location)
        matches = []
        for name, module in formats.items():
            match = module and module.recognize(location)
            if match is not None or family:
                matches.append((name, match))
    except DataError as error:
        raise refused(
            error.message,
            allowed=error.allowed,
            fix=error.fix or None,
            hint=error.hint or None,
        ) from error
    except OSError as error:
        problem = f"'{error.filename or path}' cannot be read: {error.strerror or error}"
        raise refused(problem) from error
    if matches:
        return matches
    lines = [f"{name}: {'; '.join(module.FORMATS)}" for name, module in formats.items()]
    raise refused(
        f"unknown data format: '{path}'",
        allowed="\n           ".join(lines),
    )


def _embedded(family: str, formats: Any) -> Sequence[str]:
    """The names of the embedded data of a family; of a custom task, only its default."""
    known = () if formats is None else formats.EMBEDDED
    default = getattr(config_of(family).Data(), "path", None)
    if isinstance(default, str) and default.startswith(EMBEDDED):
        return [default, *known]
    return known


def render(findings: Findings) -> bytes:
    """The page: tables and pictures in one file, without scripts or links to the network."""
    groups = findings.overlapping_groups
    state = "bad" if groups else "good"
    line = "; ".join(filter(None, [findings.format, f"read by {findings.model}"]))
    return page.render(
        _TEMPLATE,
        title=f"Data: {findings.path}",
        path=findings.path,
        line=line,
        facts=page.fact_rows(findings.facts),
        parts_of_sample=sample_rows(findings),
        sample=page.fact_rows(findings.sample),
        state="quiet" if groups is None else state,
        overlap=overlap(findings),
        pictures=[(b64encode(each.png).decode(), each.caption) for each in findings.pictures],
    )


def overlap(findings: Findings) -> str:
    """The line about groups in two splits."""
    groups = findings.overlapping_groups
    if groups is None:
        return "unknown: the task has no groups"
    if not groups:
        return "none: no group is in two splits"
    are = "is" if len(groups) == 1 else "are"
    return f"{counted(len(groups), 'group')} {are} in two splits: {page.fact_text(groups[:10])}"


def sample_rows(findings: Findings) -> list[tuple[str, str]]:
    """Name and text of each part of the sample, up to SHOWN characters of each."""
    rows = []
    for part in findings.text:
        text = part.text if len(part.text) <= SHOWN else f"{part.text[:SHOWN]}…"
        rows.append(("learned" if part.in_loss else "given", text))
    return rows


def write(findings: Findings, folder: Path) -> Path:
    """Write the page. Touches the disk. Raises SettingsError."""
    with disk.writing(folder, f"--out {folder}"), disk.new_parents(folder / PAGE):
        atomic_write(folder / PAGE, render(findings))
    return folder / PAGE
