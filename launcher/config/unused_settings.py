"""Which settings were read: a view of the settings that remembers, and what nobody asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from launcher.base.diagnostics import Diagnostic, shown
from launcher.config import errors, history
from launcher.config.continual_settings import Continual
from launcher.config.download_settings import Download
from launcher.config.entries import USER_LAYERS
from launcher.config.resolved import Resolved, Setting
from launcher.config.validate import why_ineffective

BY_THE_LAUNCHER = frozenset(
    {
        "mode",
        "promise",
        "stages",
        "unread_settings",
        "model.family",
        "model.size",
        "engine.name",
        "engine.nproc",
        "engine.max_restarts",
        "limits.profile",
        "train.global_batch",
        "train.micro_batch",
        "train.accumulation",
        *(f"continual.{name}" for name in Continual.model_fields),
        *(f"download.{name}" for name in Download.model_fields),
    }
)
"""What is acted on before the run begins; the rest has to be read by the run."""


class TrackedSettings:
    """The settings, or a section of them, by attribute; each leaf that is read is remembered.

    Sections share one memory. Nothing can be written.
    """

    __slots__ = ("_prefix", "_seen", "_settings")

    def __init__(self, settings: BaseModel, prefix: str = "", seen: set[str] | None = None) -> None:
        object.__setattr__(self, "_settings", settings)
        object.__setattr__(self, "_prefix", prefix)
        object.__setattr__(self, "_seen", set() if seen is None else seen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask for names that settings never have
            raise AttributeError(name)
        value = getattr(self._settings, name)
        key = self._prefix + name.rstrip("_")  # `async` needs one, being a word of Python
        if isinstance(value, BaseModel):
            return TrackedSettings(value, f"{key}.", self._seen)
        self._seen.add(key)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"settings stay as they were resolved: {self._prefix}{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return TrackedSettings, (self._settings, self._prefix, self._seen)

    def __repr__(self) -> str:
        return f"Taken({self._settings!r})"


def settings_read(view: TrackedSettings) -> frozenset[str]:
    """The dotted keys that were read through a view, or through any section taken from it."""
    return frozenset(object.__getattribute__(view, "_seen"))


def unused_keys(values: Mapping[str, Setting], taken: Collection[str]) -> list[str]:
    """The settings that some layer above built-in decided, that count, and that nobody read.

    A setting does not count where another makes it meaningless (`only_if`, `unless` beside its
    declaration).
    """
    return [
        key
        for key, value in values.items()
        if key not in taken
        and key not in BY_THE_LAUNCHER
        and history.first_origin(value).layer != "built-in"
        and why_ineffective(values, key) is None
    ]


def unused_diagnostics(resolved: Resolved, taken: Collection[str]) -> list[Diagnostic]:
    """What to tell a person of their own settings that nobody read."""
    found = []
    for key in unused_keys(resolved.values, taken):
        value = resolved.values[key]
        if history.first_origin(value).layer not in USER_LAYERS:
            continue
        found.append(
            Diagnostic(
                f"{key} {shown(value.value)} was set, and nothing in this run reads it",
                key=key,
                value=value.value,
                where=errors.where(key, value.origin),
                fix="leave it out",
                severity="error" if resolved.settings.unread_settings == "error" else "warning",
            )
        )
    return found
