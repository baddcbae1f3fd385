"""The scope of promises: which of them a run is given, and why not the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.base.diagnostics import Diagnostic, nearest_match
from launcher.config import errors
from launcher.config.provenance import CLI_LAYER, Origin, Setting, TypedEntry, Values
from launcher.config.schema import config_of
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
    if choice.size is not None and (of_run := values.get("model.size")) is not None:
        if is_of_mode(of_run):
            size = of_run.mode_default
        elif of_run.shipped == of_run.mode_default:  # or else the user replaced the mode's size
            size = of_run.value
    for measure in setting.value:
        for promises, origin in setting.all_values:
            if measure not in promises:
                break
            bounds = promises[measure]
            reason = f"withdrawn by {origin.where}"
            if bounds is not None:
                reason = _outside(bounds, size, device)
            if reason:
                reasons.setdefault(measure, reason)
            if bounds is None or not reason:
                given[measure] = bounds
                break
    if given != setting.value:
        where = setting.origin.where
        setting = setting.overridden(given, Origin(setting.origin.layer, where, "those that apply"))
    return setting, reasons


def _outside(bounds: Mapping[str, Any], size: str | None, device: str) -> str:
    """Why a run is outside of the scope of `bounds`; empty: it is inside."""
    sizes = bounds.get("sizes")
    if sizes is not None and size not in sizes:
        instead = ", where the mode chooses the size" if size is None else f", not {size}"
        return f"{limits(bounds)} at size {' or '.join(sizes)}{instead}"
    if bounds.get("device") == "cpu" and device != "cpu":
        return f"{limits(bounds)} on a CPU"
    return ""


def is_of_mode(size: Setting) -> bool:
    """Whether the mode chooses another size than mode default, and the command line none.

    A file may repeat the size of the mode, as the settings.yaml of a run does.
    """
    is_typed = any(origin.layer == CLI_LAYER for _, origin in size.all_values)
    return not is_typed and size.mode_default != size.shipped == size.value


def limits(bounds: Mapping[str, Any]) -> str:
    """`at least 0.4 and at most 0.6`."""
    ends = {"at_least": "at least", "at_most": "at most"}
    known = [f"{word} {bounds[end]:g}" for end, word in ends.items() if bounds.get(end) is not None]
    return " and ".join(known)


def scope_errors(family: str, entry: TypedEntry) -> Iterator[Diagnostic]:
    """Errors of the sizes that the promises of a user's entry name.

    A file may be used for several families, so a size may be of any family.
    """
    for measure, bounds in entry.value.items() if isinstance(entry.value, dict) else ():
        names = bounds.get("sizes") if isinstance(bounds, dict) else None
        for name in names if isinstance(names, list) else ():
            known = [*config_of(family).SIZES]
            every = [*known, *(size for other in FAMILIES for size in config_of(other).SIZES)]
            if name not in every:
                message, allowed = (
                    f"unknown size {name!r} in {KEY}.{measure}.sizes",
                    ", ".join(known or every),
                )
                suggestion = nearest_match(str(name), every)
                yield errors.about_entry(entry, message, allowed=allowed, did_you_mean=suggestion)
