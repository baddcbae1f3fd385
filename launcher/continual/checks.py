"""What keeps a run from learning on, told before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from launcher.base.diagnostics import Fault, shown
from launcher.config import errors
from launcher.config.resolved import Value

_ENABLED = "continuous.enabled"
_PATH = "data.path"
_HOLD = "continuous.hold"


def contradictions(values: Mapping[str, Value]) -> Iterator[Fault]:
    """What among the settings does not go with `continuous.enabled`."""
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
            "leaves nothing that the next intake could go on from",
            "true",
            errors.write_over("save.last", values["save.last"].origin, "true"),
        )
    if values["continuous.on_change"].value == "learn" and values[_HOLD].value != "copy":
        why = "would replay changed files in place of what was learnt"
        origin = values[_HOLD].origin
        yield _refused(values, _HOLD, why, "copy", errors.write_over(_HOLD, origin, "copy"))
    if values["continuous.refetch_every_s"].value and not values["download.fetch"].value:
        why = "has nothing to fetch again"
        mend = "write  --download-data  too"
        yield _refused(values, "continuous.refetch_every_s", why, "declared files", mend)
    control = values.get("data.control")
    if control is not None and control.value != "real":
        yield _refused(values, "data.control", "is a control, which ends with its result", "real")
    if values["mode"].value == "staged" or values["stages"].value:
        key = "stages" if values["stages"].value else "mode"
        yield _refused(values, key, "trains stages, which do not learn on", "another mode")


def _refused(
    values: Mapping[str, Value], key: str, why: str, legal: str, mend: str | None = None
) -> Fault:
    value = values.get(key)
    asked = errors.place(_ENABLED, values[_ENABLED].origin)
    return Fault(
        f"{key} {shown(value.value if value else None)} {why}",
        key=key,
        value=value.value if value else None,
        place=errors.place(key, value.origin) if value else asked,
        legal=f"{legal}, with {asked}",
        mend=mend,
    )


def placed(source: str, values: Mapping[str, Value]) -> Iterator[Fault]:
    """Under torchrun or srun no process of ours outlives the ranks, to look for new files."""
    if values[_ENABLED].value:
        yield Fault(
            f"{_ENABLED} true, but {source} has started the processes, and they end when the data "
            "is learnt",
            key=_ENABLED,
            value=True,
            place=errors.place(_ENABLED, values[_ENABLED].origin),
            legal=f"without {source}: this program starts the processes of one machine itself",
            mend="write  --nproc N  in place of it",
        )


def within(folder: Path, values: Mapping[str, Value]) -> Iterator[Fault]:
    """A run folder inside of what it watches would be taken for data."""
    path = values[_PATH].value if _PATH in values else None
    if not values[_ENABLED].value or not isinstance(path, str):
        return
    source = Path(path).expanduser().resolve()
    if source in folder.resolve().parents or source == folder.resolve():
        yield Fault(
            f"the run folder {folder} lies in the data that it watches, {path}",
            key=_PATH,
            value=path,
            place=errors.place(_PATH, values[_PATH].origin),
            legal="a run folder elsewhere",
            mend="write  --out DIR  outside of it",
        )
