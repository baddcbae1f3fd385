"""What the settings say of data to fetch: whether it can be, and where `data.path` then leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from launcher.base.diagnostics import Diagnostic
from launcher.config import errors, history
from launcher.config.download_settings import LEGAL, Download
from launcher.config.entries import USER_LAYERS
from launcher.config.resolved import Origin, Setting
from launcher.download.targets import Target, data_path, targets

Values = Mapping[str, Setting]
OPTION = "--download-data"
_PATH = "data.path"
_EXAMPLE = "download: {files: [https://example.org/data.zip]}"


def point_data_path(values: dict[str, Setting]) -> list[str]:
    """Let `data.path` lead to what will be fetched, where no person says otherwise.

    What is told of it, a line each.
    """
    found = _targets(values)
    if not found or _PATH not in values or values[_PATH].origin.layer in USER_LAYERS:
        return []
    if not all(target.name for target in found):
        return []  # told as a fault
    path, origin = data_path(found), _asked(values)
    values[_PATH] = history.overridden(values[_PATH], path, Origin("machine", origin))
    return [f"{_PATH}: {path}, of {origin}"]


def will_download(values: Values, path: str) -> bool:
    """Whether `path` lies where files will be fetched to, so that it need not be there yet."""
    wanted = Path(path)
    return any(target.folder in (wanted, *wanted.parents) for target in _targets(values))


def check_download(values: Values) -> Iterator[Diagnostic]:
    """What is wrong with the declared files, beside each by itself."""
    files = values["download.files"]
    if values["download.fetch"].value and not files.value:
        yield Diagnostic(
            f"{_asked(values)}: download.files declares no URL",
            key="download.files",
            where=_asked(values),
            allowed=LEGAL,
            fix=f"write into a settings file  {_EXAMPLE}  and name it with  --config",
        )
    elif not values["download.fetch"].value:
        yield from _unfetched(values)
    yield from _unplaced(values)


def _unfetched(values: Values) -> Iterator[Diagnostic]:
    """Files that a person declares, on a run that would train on something else."""
    files = values["download.files"]
    if not history.is_set_by_user(files) or _PATH not in values:
        return
    if values[_PATH].origin.layer not in USER_LAYERS:
        yield Diagnostic(
            f"download.files is declared, and this run does not fetch it; it would train on "
            f"{values[_PATH].value}",
            key="download.files",
            value=files.value,
            where=errors.where("download.files", files.origin),
            fix=f"{OPTION}  or name what is there with  --data PATH",
            severity="warning",
        )


def _unplaced(values: Values) -> Iterator[Diagnostic]:
    """Files without a name, and two that would lie in one place."""
    origin = values["download.files"].origin
    seen: dict[str, Target] = {}
    for place, target in enumerate(_targets(values, even_unasked=True)):
        what = None
        if not target.name:
            what = "does not end in the name of a file"
        elif target.path.name.casefold() in seen:
            what = f"would lie at {target.path}, where another one does"
        if what is not None:
            yield Diagnostic(
                f"download.files[{place}].url '{target.file.url}' {what}",
                key="download.files",
                value=target.file.url,
                where=errors.where("download.files", origin),
                fix=f"give it a name: write  {{url: {target.file.url}, name: data-{place}.zip}}",
            )
        seen.setdefault(target.path.name.casefold(), target)


def _targets(values: Values, even_unasked: bool = False) -> list[Target]:
    if not (even_unasked or values["download.fetch"].value):
        return []
    told = {name: values[f"download.{name}"].value for name in Download.model_fields}
    return targets(Download.model_validate(told))


def _asked(values: Values) -> str:
    """Who asked for it: the option, or the line of a file."""
    return errors.where("download.fetch", values["download.fetch"].origin)
