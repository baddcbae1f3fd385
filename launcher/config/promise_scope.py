"""The scope of promises: which of them a run is given, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from launcher.base.diagnostics import Diagnostic, nearest_match, shown
from launcher.config import errors
from launcher.config.provenance import (
    CLI_LAYER,
    FITTED_LAYERS,
    Origin,
    Setting,
    TypedEntry,
    Values,
)
from launcher.config.schema import Bounds, Measure, config_of, setting_infos
from launcher.config.selection import Choice
from models.catalog import FAMILIES

KEY = "promise"


def scoped(values: Values, choice: Choice, device: str) -> tuple[Setting, dict[str, str]]:
    """The promises that a run on `device` is given, and by measure why not the others.

    Of the layers that promise a measure the highest one counts whose scope has the run. A promise
    of a GPU stays on a CPU, where a comparison plans it; one that is withdrawn stays null.
    """
    setting, given, reasons = values[KEY], dict[str, Any](), dict[str, str]()
    size = None
    if choice.size is not None and "model.size" in values:
        of_run = values["model.size"]
        size = of_run.mode_default if is_changed(of_run) else of_run.value
    for measure in setting.value:
        for promises, origin in setting.all_values:
            if measure not in promises:
                break
            bounds = promises[measure]
            reason = f"withdrawn by {origin.where}"
            if bounds is not None:
                reason = _outside(bounds, size, device, values)
            if reason:
                reasons.setdefault(measure, reason)
            if bounds is None or not reason:
                given[measure] = bounds
                break
    if given != setting.value:
        where = setting.origin.where
        setting = setting.overridden(given, Origin(setting.origin.layer, where, "those that apply"))
    return setting, reasons


def _outside(bounds: Mapping[str, Any], size: str | None, device: str, values: Values) -> str:
    """Why a run is outside of the scope of `bounds`; empty: it is inside."""
    sizes = bounds.get("sizes")
    if sizes is not None and size not in sizes:
        instead = "" if size is None else f", not {size}"
        return f"{limits(bounds)} at size {' or '.join(sizes)}{instead}"
    if bounds.get("device") == "cpu" and device != "cpu":
        return f"{limits(bounds)} on a CPU"
    needs = bounds.get("needs") or ()
    same = [key for key in needs if key not in values or not is_changed(values[key])]
    return f"{limits(bounds)} needs a change of {' and '.join(same)}" if same else ""


def is_changed(setting: Setting) -> bool:
    """Whether the mode changes a setting that the command line leaves to it.

    A file may repeat the value of the mode, as the settings.yaml of a run does.
    """
    is_typed = any(origin.layer == CLI_LAYER for _, origin in setting.all_values)
    is_of_mode = not is_typed and setting.without(FITTED_LAYERS) == setting.shipped
    return bool(is_of_mode and setting.shipped != setting.mode_default)


def limits(bounds: Mapping[str, Any]) -> str:
    """`at least 0.4 and at most 0.6`."""
    ends = {"at_least": "at least", "at_most": "at most"}
    known = [f"{word} {bounds[end]:g}" for end, word in ends.items() if bounds.get(end) is not None]
    return " and ".join(known)


def scope_errors(family: str, entry: TypedEntry) -> Iterator[Diagnostic]:
    """Errors of the sizes and settings that the promises of a user's entry name.

    A file may be used for several families, so a size may be of any family.
    """
    sizes = tuple(config_of(family).SIZES)
    for measure, bounds in entry.value.items() if isinstance(entry.value, dict) else ():
        for kind, known in (("sizes", sizes), ("needs", tuple(setting_infos(family)))):
            names = bounds.get(kind) if isinstance(bounds, dict) else None
            for name in names if isinstance(names, list) else ():
                if name in known:
                    continue
                every = [*known, *_of_families(kind)]
                if name not in every:
                    yield _unknown(entry, f"{measure}.{kind}", name, known or every, every)


def rejected(entry: TypedEntry, detail: Any) -> Diagnostic:
    """The error of a part of a promise that the schema rejects with `detail`."""
    _, measure, *inner = detail["loc"]
    part = ".".join(map(str, (KEY, measure, *inner)))
    message, names = f"{part} {shown(detail['input'])} is not understood", tuple[str, ...]()
    if inner == ["[key]"]:
        message, names = f"unknown measure {measure!r} in {KEY}", get_args(Measure)
    elif detail["type"] == "extra_forbidden":
        message, names = f"{KEY}.{measure} has no key {inner[-1]!r}", tuple(Bounds.model_fields)
    allowed = ", ".join(names) or detail["msg"].removeprefix("Input should be ")
    name = measure if inner == ["[key]"] else detail["loc"][-1]
    suggestion = nearest_match(str(name), names)
    return _about(entry, message, detail["input"], allowed, suggestion)


def _of_families(kind: str) -> Iterator[str]:
    for family in FAMILIES:
        yield from config_of(family).SIZES if kind == "sizes" else setting_infos(family)


def _unknown(entry: TypedEntry, part: str, name: str, allowed: Any, known: Any) -> Diagnostic:
    what = "size" if part.endswith("sizes") else "setting"
    names = "names of `explain`" if what == "setting" else ", ".join(dict.fromkeys(allowed))
    message = f"unknown {what} {name!r} in {KEY}.{part}"
    return _about(entry, message, name, names, nearest_match(str(name), known))


def _about(
    entry: TypedEntry, message: str, value: Any, allowed: str, suggestion: str | None
) -> Diagnostic:
    return Diagnostic(
        message,
        key=KEY,
        value=value,
        where=errors.where(KEY, entry.origin),
        allowed=allowed,
        did_you_mean=suggestion,
        order=entry.order,
    )
