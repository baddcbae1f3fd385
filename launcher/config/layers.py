"""The layers of settings: those that come with Gearshift, the user's, and stacking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, nearest_match
from launcher.config import errors, presets
from launcher.config.paths import PATHS
from launcher.config.presets import TASK_FOLDER
from launcher.config.provenance import (
    BUILT_IN_LAYER,
    CLI_LAYER,
    ENGINE_LAYER,
    FAMILY_LAYER,
    MODE_LAYER,
    PROFILE_LAYER,
    Origin,
    Setting,
    TypedEntry,
    Values,
    entries,
)
from launcher.config.schema import (
    FIRST_RUN,
    config_of,
    get,
    sections,
    setting_infos,
    settings_class,
    unseen_by_schema,
)
from launcher.config.selection import Choice, UserSettings
from models.catalog import FAMILIES
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base

PROMISE = "promise"
Layer = Sequence[TypedEntry]
"""The entries of one source, all with the same layer in their origins."""


def stack_layers(
    choice: Choice, user: UserSettings, base: Base | None = None, is_placed: bool = False
) -> tuple[dict[str, Setting], list[TypedEntry], list[Diagnostic]]:
    """Every setting after all layers, the entries of the user, and the errors in both.

    `base`: the settings of the resumed run; `is_placed`: torchrun or srun started the processes.
    """
    family = choice.family
    users, unreadable = user.layers(family)
    shipped = [*_shipped_layers(choice, user.mode)]
    if base is not None:
        below, _ = merge_layers(family, shipped)
        keys = {entry.key for layer in users for entry in layer}
        users = [base.over(below, keys, choice.engine, is_placed), *users]
    values, invalid = merge_layers(family, [*shipped, *users])
    for entry in (e for layer in (user.mode, *users) for e in layer if e.key == PROMISE):
        invalid += _scope_errors(family, entry)
    if TASK_FOLDER in values:  # where a custom task was found, instead of where it was searched
        folder = setting_infos(family)[TASK_FOLDER].default
        values[TASK_FOLDER] = replace(values[TASK_FOLDER], value=folder)
    # Of a custom task that cannot be used, that is the only error: its settings are unknown.
    known = {diagnostic.key for diagnostic in choice.diagnostics}
    unknown = ("model.", "data.") if "model.family" in known else ()
    others = [e for e in invalid if e.key not in known and not (e.key or "").startswith(unknown)]
    diagnostics = [*user.diagnostics, *unreadable, *choice.diagnostics, *others]
    return values, [entry for layer in users for entry in layer], diagnostics


def _shipped_layers(choice: Choice, user_mode: Layer) -> Iterator[Layer]:
    """The layers of family, mode, limits profile and engine; the built-in one is the schema's own."""
    file, size, mode, infos = choice.file, choice.size or "", choice.mode, setting_infos(choice.family)

    def of_family(shared: Layer) -> Layer:
        """The entries of a file for all families, without those of `model` and `data` it lacks."""
        return [e for e in shared if e.key in infos or not e.key.startswith(("model.", "data."))]

    declared = entries(FAMILY_LAYER, file.block("declared"))
    by_key = {entry.key: entry for entry in declared}
    max_steps = by_key.get("train.max_steps")
    if max_steps is not None and max_steps.value is not None and "train.epochs" not in by_key:
        # The limit of steps of a custom task overrides the epochs of all such tasks.
        declared.append(replace(max_steps, key="train.epochs", value=None))
    yield entries(FAMILY_LAYER, file.block("default"))
    yield declared
    if not choice.model_named:
        yield [TypedEntry("model.size", FIRST_RUN[1], Origin(FAMILY_LAYER, "no model named"))]
    for path in (("sizes", size), *(("given", key) for key in choice.given)):
        yield entries(FAMILY_LAYER, file.block(*path))
    if mode is not None:
        yield of_family(entries(MODE_LAYER, presets.mode(mode).lines))
    for kind, name in (("modes", mode), ("stages", choice.stage)):
        if name is not None:
            yield entries(MODE_LAYER, file.block(kind, name))
            yield entries(MODE_LAYER, file.block("sizes", size, kind, name))
    yield user_mode
    if choice.profile is not None:
        yield of_family(entries(PROFILE_LAYER, presets.profile(choice.profile)))
    if choice.engine is not None:
        needed: Mapping[str, Any] = ENGINES[choice.engine].settings
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        yield [TypedEntry(key, value, origin) for key, value in needed.items()]


def merge_layers(family: str, layers: Sequence[Layer]) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """Every setting of the family after the layers, lowest first, and the errors in them.

    An invalid value is left out, so that all errors of one start are found together.
    """
    built_in = Origin(BUILT_IN_LAYER, BUILT_IN_LAYER)
    infos = setting_infos(family)
    values = {key: Setting(_plain(info.default), built_in) for key, info in infos.items()}
    diagnostics: list[Diagnostic] = []
    default: Values | None = None
    for layer in layers:
        name = layer[0].origin.layer if layer else None
        if name == MODE_LAYER and default is None:
            default = dict(values)
        entries = _known_entries(family, layer, diagnostics)
        if name in (MODE_LAYER, PROFILE_LAYER):
            before = default if name == MODE_LAYER and default is not None else values
            for number, entry in enumerate(entries):
                if presets.is_change(entry.value):
                    sizes, old = tuple(config_of(family).SIZES), before[entry.key].value
                    value, how = presets.apply_change(entry.value, old, sizes)
                    origin = replace(entry.origin, how=how)
                    entries[number] = replace(entry, value=value, origin=origin, text=None)
        for entry, value in _valid(family, entries, values, diagnostics):
            below = values[entry.key]
            if entry.key == PROMISE:
                value = {**below.value, **value}
            values[entry.key] = below.overridden(value, entry.origin)
    return values, diagnostics


def _known_entries(family: str, layer: Layer, diagnostics: list[Diagnostic]) -> list[TypedEntry]:
    """The layer's entries for existing settings; others become errors."""
    infos, seen = setting_infos(family), dict[str, TypedEntry]()
    for entry in layer:
        first = seen.get(entry.key)
        if entry.value is None and entry.key in sections(family):
            continue  # an empty section
        if entry.key not in infos:
            diagnostics.append(_value_errors().unknown_key(family, entry))
        # Of two arguments the later counts; a file must not have a key both nested and dotted.
        elif first and entry.option is None:
            message = f"{entry.key} is set twice, first in {first.origin.where}"
            diagnostics.append(errors.about_entry(entry, message, fix="remove one of them"))
        else:
            seen[entry.key] = entry
    return list(seen.values())


def _valid(
    family: str, entries: Layer, values: Values, diagnostics: list[Diagnostic]
) -> Iterator[tuple[TypedEntry, Any]]:
    """The valid entries with their values as the schema reads them; others become errors."""
    by_key = {entry.key: entry for entry in entries}
    invalid: dict[str, Diagnostic] = {}
    schema, infos, left = settings_class(family), setting_infos(family), dict(by_key)
    settings = None
    while settings is None:
        try:
            settings = schema.model_validate(nested({k: e.value for k, e in left.items()}), strict=True)
        except ValidationError as failed:
            for detail in failed.errors(include_url=False):
                parts = [str(part) for part in detail["loc"]]
                dotted = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
                key = next(key for key in dotted if key in by_key)
                diagnostic = _value_errors().rejected(infos[key], by_key[key], detail, values[key])
                left.pop(key, None)
                invalid.setdefault(diagnostic.key or key, diagnostic)
    for key, entry in left.items():
        if kind := unseen_by_schema(infos[key], entry.value):
            invalid.setdefault(key, _value_errors().bad_value(infos[key], entry, kind, values[key]))
        elif key in PATHS and (error := errors.impossible_path(entry)):
            invalid[key] = error
        else:
            yield entry, _plain(get(settings, key))
    diagnostics += invalid.values()


def _plain(value: Any) -> Any:
    """A value with mappings for the schema's classes, holding only what was set."""
    if isinstance(value, list):
        return [
            item.model_dump(exclude_unset=True) if isinstance(item, BaseModel) else item for item in value
        ]
    if isinstance(value, dict):
        return {
            key: item.model_dump(exclude_none=True) if isinstance(item, BaseModel) else item
            for key, item in value.items()
        }
    return value


def _value_errors() -> ModuleType:
    """The module of these errors, which only they need."""
    from launcher.config import value_errors

    return value_errors


def scoped(values: Values, choice: Choice, device: str) -> tuple[Setting, dict[str, str]]:
    """The promises that a run on `device` is given, and by measure why not the others.

    Of the layers that promise a measure the highest one counts whose scope has the run. A promise
    of a GPU stays on a CPU, where a comparison plans it; one that is withdrawn stays null.
    """
    setting, given, reasons = values[PROMISE], dict[str, Any](), dict[str, str]()
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


def _scope_errors(family: str, entry: TypedEntry) -> Iterator[Diagnostic]:
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
                    f"unknown size {name!r} in {PROMISE}.{measure}.sizes",
                    ", ".join(known or every),
                )
                suggestion = nearest_match(str(name), every)
                yield errors.about_entry(entry, message, allowed=allowed, did_you_mean=suggestion)
