"""What keeps a run from learning on, told before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, shown
from launcher.config import errors
from launcher.config.resolved import Value

_ENABLED = "continual.enabled"
_PATH = "data.path"
_HOLD = "continual.hold"


def contradictions(values: Mapping[str, Value]) -> Iterator[Diagnostic]:
    """What among the settings does not go with `continual.enabled`."""
    if not values[_ENABLED].value:
        return
    path = values[_PATH].value if _PATH in values else None
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        is_file = isinstance(path, str) and Path(path).expanduser().is_file()
        yield _refused(
            values,
            _PATH,
            "is no folder that new files could come into",
            "a folder; its files are the data to begin with",
            f"write  --data {Path(str(path)).parent}" if is_file else "write  --data FOLDER",
        )
    if not values["save.last"].value:
        yield _refused(
            values,
            "save.last",
            "leaves nothing that the next experience could go on from",
            "true",
            errors.write_over("save.last", values["save.last"].origin, "true"),
        )
    if values["continual.on_change"].value == "learn" and values[_HOLD].value != "copy":
        why = "would replay changed files in place of what was learnt"
        origin = values[_HOLD].origin
        yield _refused(values, _HOLD, why, "copy", errors.write_over(_HOLD, origin, "copy"))
    if values["continual.refetch_every_s"].value and not values["download.fetch"].value:
        why = "has nothing to fetch again"
        fix = "write  --download-data  too"
        yield _refused(values, "continual.refetch_every_s", why, "declared files", fix)
    control = values.get("data.control")
    if control is not None and control.value != "real":
        yield _refused(values, "data.control", "is a control, which ends with its result", "real")
    if values["mode"].value == "staged" or values["stages"].value:
        key = "stages" if values["stages"].value else "mode"
        yield _refused(values, key, "trains stages, which do not learn on", "another mode")


def _refused(
    values: Mapping[str, Value], key: str, why: str, allowed: str, fix: str | None = None
) -> Diagnostic:
    value = values.get(key)
    asked = errors.place(_ENABLED, values[_ENABLED].origin)
    return Diagnostic(
        f"{key} {shown(value.value if value else None)} {why}",
        key=key,
        value=value.value if value else None,
        where=errors.place(key, value.origin) if value else asked,
        allowed=f"{allowed}, with {asked}",
        fix=fix,
    )


def placed(source: str, values: Mapping[str, Value]) -> Iterator[Diagnostic]:
    """Under torchrun or srun no process of ours outlives the ranks, to look for new files."""
    if values[_ENABLED].value:
        yield Diagnostic(
            f"{_ENABLED} true, but {source} has started the processes, and they end when the data "
            "is learnt",
            key=_ENABLED,
            value=True,
            where=errors.place(_ENABLED, values[_ENABLED].origin),
            allowed=f"without {source}: this program starts the processes of one machine itself",
            fix="write  --nproc N  in place of it",
        )


def within(folder: Path, values: Mapping[str, Value]) -> Iterator[Diagnostic]:
    """A run folder inside of what it watches would be taken for data."""
    path = values[_PATH].value if _PATH in values else None
    if not values[_ENABLED].value or not isinstance(path, str):
        return
    source = Path(path).expanduser().resolve()
    if source in folder.resolve().parents or source == folder.resolve():
        yield Diagnostic(
            f"the run folder {folder} lies in the data that it watches, {path}",
            key=_PATH,
            value=path,
            where=errors.place(_PATH, values[_PATH].origin),
            allowed="a run folder elsewhere",
            fix="write  --out DIR  outside of it",
        )
