"""Checks of continual learning that need no data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, shown
from launcher.config import errors
from launcher.config.resolved import Setting

_ENABLED = "continual.enabled"
_PATH = "data.path"


def check_continual(values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Settings that contradict `continual.enabled`."""
    if not values[_ENABLED].value:
        return
    path = values[_PATH].value if _PATH in values else None
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        is_file = isinstance(path, str) and Path(path).expanduser().is_file()
        yield _contradiction(
            values,
            _PATH,
            "is not a folder: new files cannot arrive there",
            "a folder; training starts with its files",
            f"--data {Path(str(path)).parent}" if is_file else "--data FOLDER",
        )
    if not values["save.last"].value:
        yield _contradiction(
            values,
            "save.last",
            "saves no checkpoint that the next experience can start from",
            "true",
            errors.fix_line("save.last", values["save.last"].origin, "true"),
        )
    control = values.get("data.control")
    if control is not None and control.value != "real":
        why = "is a control run, which ends with its result"
        yield _contradiction(values, "data.control", why, "real")
    if values["mode"].value == "staged" or values["stages"].value:
        key = "stages" if values["stages"].value else "mode"
        why = "trains in stages, which continual learning does not support"
        yield _contradiction(values, key, why, "another mode")


def _contradiction(
    values: Mapping[str, Setting], key: str, why: str, allowed: str, fix: str | None = None
) -> Diagnostic:
    value = values.get(key)
    enabled_at = errors.where(_ENABLED, values[_ENABLED].origin)
    return Diagnostic(
        f"{key} {shown(value.value if value else None)} {why}",
        key=key,
        value=value.value if value else None,
        where=errors.where(key, value.origin) if value else enabled_at,
        allowed=f"{allowed}, with {enabled_at}",
        fix=fix,
    )


def check_launcher(source: str, values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Refuse torchrun and srun (`source`): nothing is left to watch the folder after the ranks."""
    if values[_ENABLED].value:
        yield Diagnostic(
            f"{_ENABLED} true cannot run under {source}: the processes that it started end after "
            "the first data",
            key=_ENABLED,
            value=True,
            where=errors.where(_ENABLED, values[_ENABLED].origin),
            allowed=f"without {source}: Gearshift starts the processes of one machine itself",
            fix="--nproc N  instead",
        )


def check_run_folder(folder: Path, values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Refuse a run folder inside the watched folder: it would be read as data."""
    path = values[_PATH].value if _PATH in values else None
    if not values[_ENABLED].value or not isinstance(path, str):
        return
    source = Path(path).expanduser().resolve()
    if source in folder.resolve().parents or source == folder.resolve():
        yield Diagnostic(
            f"the run folder {folder} is inside the watched folder {path}",
            key=_PATH,
            value=path,
            where=errors.where(_PATH, values[_PATH].origin),
            allowed="a run folder elsewhere",
            fix="--out DIR  outside of it",
        )
