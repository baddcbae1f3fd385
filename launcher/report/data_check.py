"""Inspection of data: the families that read it, its format, facts, splits, sample and page."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gearshift.launcher.base import disk, environment, temporary
from gearshift.launcher.base.diagnostics import SettingsError, counted, nearest_match
from gearshift.launcher.config.errors import about_data
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import model_name, task_with_data
from gearshift.launcher.config.settings_file import nearest_file
from gearshift.launcher.report import page
from gearshift.models.base import DataError, Picture, SamplePart
from gearshift.models.catalog import FAMILIES, is_custom
from gearshift.models.common.data_files import check_kind, unreadable_file
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
    environment.limit_spinning()  # before torch is imported
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
            raise about_data(error, value=path) from error


def find_families(path: str, family: str | None, origin: str) -> list[tuple[str, str | None]]:
    """The families that may read the data at `path`, each with one of its FORMATS. Reads the disk.

    Only `family`, if it is given. A format is recognized by names or
    a few bytes, so several families may match; it is None of embedded data. Raises SettingsError if
    none matches; `origin` is the command that names the path.
    """
    formats: Json = {
        name: import_module(FAMILIES[name].formats)
        for name in ([family] if family else FAMILIES)
        if not is_custom(name)
    }
    if path.startswith(EMBEDDED):
        owners = {}
        for name, module in formats.items():
            owners.update(dict.fromkeys(module.EMBEDDED, name))
        if path in owners:
            return [(owners[path], None)]
        if family and not formats:  # a custom task has its own
            return [(family, None)]
        problem = f"unknown embedded data '{path}'"
        raise _unknown(problem, path, origin, nearest_match(path, owners), ", ".join(owners))

    location = Path(path).expanduser()
    try:
        if not location.exists():
            problem = f"file or folder '{path}' does not exist"
            raise _unknown(problem, path, origin, nearest_file(path))
        # A pipe or a device would block whoever opens it.
        check_kind(location)
        matches = {name: module.recognize(location) for name, module in formats.items()}
    except DataError as error:
        raise about_data(error, value=path, where=origin) from error
    except OSError as error:
        raise about_data(unreadable_file(location, error), value=path, where=origin) from error
    if family:
        return [(family, matches.get(family))]
    recognized = [(name, match) for name, match in matches.items() if match is not None]
    if not recognized:
        lines = [f"{name}: {'; '.join(module.FORMATS)}" for name, module in formats.items()]
        allowed = "\n           ".join(lines)
        raise _unknown(f"unknown data format: '{path}'", path, origin, None, allowed)
    return recognized


def _unknown(
    problem: str, path: str, origin: str, nearest: str | None, allowed: str | None = None
) -> SettingsError:
    return SettingsError.of(
        problem,
        value=path,
        where=origin,
        allowed=allowed,
        did_you_mean=nearest,
        fix=nearest and shlex.quote(nearest),
        replaces=(path,),
    )


def render(findings: Findings) -> bytes:
    """The page: tables and pictures in one file, without scripts or links to the network."""
    line = "; ".join(filter(None, [findings.format, f"read by {findings.model}"]))
    return page.render(
        _TEMPLATE,
        title=f"Data: {findings.path}",
        path=findings.path,
        line=line,
        facts=page.fact_rows(findings.facts),
        parts_of_sample=sample_rows(findings),
        sample=page.fact_rows(findings.sample),
        state="bad" if findings.overlapping_groups else "quiet",
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
    return f"{counted(len(groups), 'group')} in two splits: {page.fact_text(groups[:10])}"


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
