"""The DeepSpeed config of a run: the engine's own, overridden by the user's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError, plain, shown
from launcher.config import errors
from launcher.config.provenance import Resolved

if TYPE_CHECKING:
    from engines.zero.config import Conflict
    from engines.zero.config_file import DeepSpeedFile

_KEY = "engine.ds_config"


def layout(resolved: Resolved, own_path: str | None) -> dict[str, Any]:
    """The DeepSpeed config of partitioning and offload; empty for other engines.

    `own_path` is the user's file, engine.ds_config. Reads the disk. Raises SettingsError for each
    key of that file that contradicts the settings.
    """
    settings = resolved.settings
    name = ENGINES[settings.engine.name].ds_config
    if name is None:
        return {}
    from engines.zero import config_file
    from engines.zero.config import ConfigConflict, merge, setting_values

    shipped = config_file.shipped(name)
    if own_path is None:
        return shipped
    own = _read(Path(own_path).expanduser(), resolved)
    says = setting_values(settings.engine.name, shipped, resolved.batching, settings)
    try:
        return merge(shipped, own.values, says)
    except ConfigConflict as found:
        raise SettingsError(
            [_diagnostic(conflict, own, resolved) for conflict in found.conflicts]
        ) from None


def _read(path: Path, resolved: Resolved) -> DeepSpeedFile:
    from engines.zero import config_file

    try:
        return config_file.read(path)
    except config_file.FileError as error:
        line = f":{error.line}" if error.line else ""
        what = f"{path}{line} {error}"
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror or error}"
    raise SettingsError.of(what, key=_KEY, where=resolved.values[_KEY].origin.where)


def _diagnostic(conflict: Conflict, own: DeepSpeedFile, resolved: Resolved) -> Diagnostic:
    line = own.lines.get(conflict.key)
    where = resolved.settings.engine.ds_config + (f":{line}" if line else "")
    what = f"{conflict.key} {shown(conflict.value)} {conflict.problem}"
    if conflict.setting is not None and conflict.setting_value is not None:
        what += f" {plain(conflict.setting_value)}"
        value = resolved.values.get(conflict.setting)
        against = errors.where(conflict.setting, value.origin) if value else "the settings"
        where += f", against {against}"
    return Diagnostic(
        what,
        key=conflict.key,
        value=conflict.value,
        where=where,
        allowed=", ".join(conflict.allowed) or None,
        did_you_mean=conflict.did_you_mean,
        fix=conflict.fix,
    )
