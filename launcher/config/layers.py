"""The layers of settings: those that come with Gearshift, the user's, and stacking them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic
from launcher.config import errors, presets
from launcher.config.paths import PATHS
from launcher.config.presets import BOUNDS, TASK_FOLDER
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
    sections,
    setting_infos,
    settings_class,
    unseen_by_schema,
)
from launcher.config.selection import Choice, Layer
from training.settings import nested

if TYPE_CHECKING:
    from launcher.config.resumed_settings import Base

PROMISE = "promise"


def stack_layers(
    choice: Choice, base: Base | None = None, is_placed: bool = False
) -> tuple[dict[str, Setting], list[TypedEntry], list[Diagnostic]]:
    """Every setting after all layers, the entries of the user, and the errors in both.

    `base`: the settings of the resumed run; `is_placed`: torchrun or srun started the processes.
    """
    family, (mode, *users) = choice.family, choice.user.layers
    typed = [entry for layer in users for entry in layer]
    shipped = [*_shipped_layers(choice, mode)]
    if base is not None:
        below, _ = merge_layers(family, shipped)
        users.insert(0, base.over(below, {entry.key for entry in typed}, choice.engine, is_placed))
    values, invalid = merge_layers(family, [*shipped, *users])
    if TASK_FOLDER in values:  # where a custom task was found, instead of where it was searched
        folder = setting_infos(family)[TASK_FOLDER].default
        values[TASK_FOLDER] = replace(values[TASK_FOLDER], value=folder)
    # Of a custom task that cannot be used, that is the only error: its settings are unknown.
    known = {diagnostic.key for diagnostic in choice.diagnostics}
    unknown = ("model.", "data.") if "model.family" in known else ()
    others = [e for e in invalid if e.key not in known and not (e.key or "").startswith(unknown)]
    return values, typed, [*choice.user.diagnostics, *choice.diagnostics, *others]


def _shipped_layers(choice: Choice, user_mode: Layer) -> Iterator[Layer]:
    """The layers of family, mode, limits profile and engine; the built-in one is the schema's own."""
    file, size, mode, infos = choice.file, choice.size or "", choice.mode, setting_infos(choice.family)

    def general(layer: str, name: str, folder: str = "modes") -> Layer:
        """The entries of a file for all families, without those of `model` and `data` it lacks."""
        lines = presets.mode(name, folder).lines
        return entries(
            layer, [e for e in lines if e.key in infos or not e.key.startswith(("model.", "data."))]
        )

    declared = {entry.key: entry for entry in entries(FAMILY_LAYER, file.block("declared"))}
    max_steps = declared.get("train.max_steps")
    if max_steps is not None and max_steps.value is not None:
        # The limit of steps of a custom task overrides the epochs of all such tasks.
        declared.setdefault("train.epochs", replace(max_steps, key="train.epochs", value=None))
    yield entries(FAMILY_LAYER, file.block("default"))
    yield list(declared.values())
    if not choice.model_named:
        yield [TypedEntry("model.size", FIRST_RUN[1], Origin(FAMILY_LAYER, "no model named"))]
    for path in (("sizes", size), *(("given", key) for key in choice.given)):
        yield entries(FAMILY_LAYER, file.block(*path))
    if mode is not None:
        yield general(MODE_LAYER, mode)
    for kind, name in (("modes", mode), ("stages", choice.stage)):
        if name is not None:
            yield entries(MODE_LAYER, file.block(kind, name))
            yield entries(MODE_LAYER, file.block("sizes", size, kind, name))
    yield user_mode
    if choice.profile is not None:
        yield general(PROFILE_LAYER, choice.profile, "profiles")
    if choice.engine is not None:
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        yield [TypedEntry(key, value, origin) for key, value in ENGINES[choice.engine].settings.items()]


def merge_layers(family: str, layers: Sequence[Layer]) -> tuple[dict[str, Setting], list[Diagnostic]]:
    """Every setting of the family after the layers, lowest first, and the errors in them.

    An invalid value is left out, so that all errors of one start are found together. What a mode
    changes is the default below all layers of modes.
    """
    built_in, sizes = Origin(BUILT_IN_LAYER, BUILT_IN_LAYER), tuple(config_of(family).SIZES)
    values = {key: Setting(info.default, built_in) for key, info in setting_infos(family).items()}
    diagnostics: list[Diagnostic] = []
    default: Values | None = None
    for layer in layers:
        name = layer[0].origin.layer if layer else None
        if name == MODE_LAYER and default is None:
            default = dict(values)
        known = _known_entries(family, layer, diagnostics)
        if name in (MODE_LAYER, PROFILE_LAYER):
            before = default if name == MODE_LAYER and default is not None else values
            for key, entry in known.items():
                if presets.is_change(entry.value):
                    value, how = presets.apply_change(entry.value, before[key].value, sizes)
                    known[key] = replace(entry, value=value, origin=replace(entry.origin, how=how))
        for key, value in _valid(family, known, values, diagnostics).items():
            if key == PROMISE:
                value = {**values[key].value, **value}
            values[key] = values[key].overridden(value, known[key].origin)
    return values, diagnostics


def _known_entries(family: str, layer: Layer, diagnostics: list[Diagnostic]) -> dict[str, TypedEntry]:
    """The layer's entries for existing settings by key; others become errors."""
    infos, known = setting_infos(family), dict[str, TypedEntry]()
    for entry in layer:
        if entry.key not in infos:
            if entry.value is not None or entry.key not in sections(family):  # an empty section
                diagnostics.append(_value_errors().unknown_key(family, entry))
        # Of two arguments the later counts; a file must not have a key both nested and dotted.
        elif entry.key in known and entry.option is None:
            message = f"{entry.key} is set twice, first in {known[entry.key].origin.where}"
            diagnostics.append(errors.about_entry(entry, message, fix="remove one of them"))
        else:
            known[entry.key] = entry
    return known


def _valid(
    family: str, known: Mapping[str, TypedEntry], values: Values, diagnostics: list[Diagnostic]
) -> dict[str, Any]:
    """The valid values by key, as the schema reads them; others become errors."""
    schema, infos, left = settings_class(family), setting_infos(family), dict(known)
    invalid: dict[str | None, Diagnostic] = {}

    def reject(key: str, error: Diagnostic) -> None:
        left.pop(key, None)
        invalid.setdefault(error.key, error)

    for key, entry in known.items():
        if message := unseen_by_schema(infos[key], entry.value):
            detail = {"type": "unseen", "loc": (), "msg": message}
            reject(key, _value_errors().rejected(infos[key], entry, detail, values[key]))
        elif key in PATHS and (error := errors.impossible_path(entry)):
            reject(key, error)
    while True:
        try:
            tree = schema.model_validate(nested({k: entry.value for k, entry in left.items()}), strict=True)
            break
        except ValidationError as failed:
            for failure in failed.errors(include_url=False):
                parts = [str(part) for part in failure["loc"]]
                dotted = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
                key = next(key for key in dotted if key in known)
                reject(key, _value_errors().rejected(infos[key], known[key], {**failure}, values[key]))
    diagnostics += invalid.values()
    read: Any = tree.model_dump(exclude_unset=True, by_alias=True)
    return {key: _get(read, key) for key in left}


def _get(tree: Any, key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        tree = tree[part]
    return tree


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
    of_run, size = values.get("model.size") if choice.size is not None else None, None
    if of_run is not None and is_of_mode(of_run):
        size = of_run.mode_default
    elif of_run is not None and of_run.shipped == of_run.mode_default:
        size = of_run.value  # or else the user replaced the mode's size

    def outside(bounds: Mapping[str, Any]) -> str:
        """Why the run is outside of the scope of `bounds`; empty: it is inside."""
        ends = [f"{word} {bounds[end]:g}" for end, word in BOUNDS.items() if bounds.get(end) is not None]
        sizes, limits = bounds.get("sizes"), " and ".join(ends)
        if sizes is not None and size not in sizes:
            instead = ", where the mode chooses the size" if size is None else f", not {size}"
            return f"{limits} at size {' or '.join(sizes)}{instead}"
        return f"{limits} on a CPU" if bounds.get("device") == "cpu" and device != "cpu" else ""

    for promises, origin in setting.all_values:
        for measure, bounds in promises.items():
            reason = f"withdrawn by {origin.where}" if bounds is None else outside(bounds)
            if measure not in given and reason:
                reasons.setdefault(measure, reason)
            if bounds is None or not reason:
                given.setdefault(measure, bounds)
    given = {measure: given[measure] for measure in setting.value if measure in given}
    if given != setting.value:
        origin = Origin(setting.origin.layer, setting.origin.where, "those that apply")
        setting = setting.overridden(given, origin)
    return setting, reasons


def is_of_mode(size: Setting) -> bool:
    """Whether the mode chooses another size than mode default, and the command line none.

    A file may repeat the size of the mode, as the settings.yaml of a run does.
    """
    is_typed = any(origin.layer == CLI_LAYER for _, origin in size.all_values)
    return not is_typed and size.mode_default != size.shipped == size.value
