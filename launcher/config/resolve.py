"""Resolves settings: reads what the user typed, chooses, stacks the layers, adapts and checks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, shown
from gearshift.launcher.base.disk import SHOWN, problem_of
from gearshift.launcher.config import adapt, batching, check, errors, paths, presets
from gearshift.launcher.config.batching import MICRO
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.paths import PATHS
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
    BUILT_IN_LAYER,
    CLI_LAYER,
    COMMAND_LINE,
    DEFAULT_MODE,
    ENGINE_LAYER,
    FAMILY_LAYER,
    MODE_LAYER,
    PROFILE_LAYER,
    Chosen,
    CliArgs,
    KeySets,
    Origin,
    Resolved,
    Setting,
    Values,
    layer_of,
)
from gearshift.launcher.config.schema import (
    FIRST_RUN,
    config_of,
    is_of_hub,
    sections,
    setting_infos,
    settings_class,
    unseen_by_schema,
)
from gearshift.launcher.config.selection import Choice, choose
from gearshift.models.catalog import is_custom
from gearshift.training.settings import nested

if TYPE_CHECKING:
    from gearshift.launcher.config.resumed_settings import Base

PROMISE = "promise"
_SIZE = "model.size"
_NO_MODEL = Origin(FAMILY_LAYER, "no model named")


def resolve(
    args: CliArgs,
    machine: Machine,
    world_size: int | None = None,
    base: Base | None = None,
    chosen: Chosen | None = None,
) -> Resolved:
    """The settings of a run. Reads settings files.

    `world_size` is given if torchrun or srun started the processes; `base` holds the settings of
    the resumed run; `chosen` is what engine auto chose. Raises SettingsError with all errors.
    """
    choice = choose(args, base)
    if chosen is not None:
        choice = replace(choice, engine=chosen.engine)
    # The layers, lowest first.
    family = choice.family
    (mode_file, *users) = choice.users
    built_in = Origin(BUILT_IN_LAYER, BUILT_IN_LAYER)
    values = {key: Setting(info.default, built_in) for key, info in setting_infos(family).items()}
    invalid = stack(family, values, _shipped_layers(choice, mode_file))
    if base is not None:
        new_keys = {key for layer in users for key in layer}
        users.insert(0, base.over(values, new_keys, choice.engine, world_size is not None))
    invalid += stack(family, values, users)
    if TASK_FOLDER in values:  # where a custom task was found, instead of where it was searched
        found = setting_infos(family)[TASK_FOLDER].default
        values[TASK_FOLDER] = replace(values[TASK_FOLDER], value=found)
    # Of a custom task that cannot be used, that is the only error: its settings are unknown.
    unknown = ("model.", "data.") if choice.diagnostics else ()
    diagnostics = [*choice.invalid, *choice.diagnostics]
    diagnostics += [
        diagnostic for diagnostic in invalid if not (diagnostic.key or "").startswith(unknown)
    ]
    keys = KeySets.of(values)

    # What the machine and the files on it change.
    if base is not None:
        paths.keep_recorded(values, base.settings)
    run = adapt.adapt(values, keys, machine, world_size, chosen)
    # The size that mode default would train: without one of the user instead of the mode's. A file may
    # repeat the size of the mode, as the settings.yaml of a run does.
    size = None if choice.size is None else values.get(_SIZE)
    default = None if size is None else size.value
    if size is not None and _SIZE in keys.changed:
        is_users = _SIZE in keys.decided or size.origin.layer == CLI_LAYER
        default = None if is_users else keys.defaults[_SIZE]
    values[PROMISE], unpromised = _scoped(values[PROMISE], default, run.device)

    diagnostics += [*run.diagnostics, *check.check_settings(values, keys)]
    solved = None
    wrong = {d.key for d in diagnostics if d.severity == "error"}
    if wrong.isdisjoint((*BATCH_SETTINGS, "engine.nproc", "engine.name")):
        try:
            solved = batching.solve_batching(values, keys, run.size)
        except SettingsError as error:
            diagnostics += error.diagnostics
    # In the order of the user's settings; those of other layers last.
    diagnostics.sort(key=lambda diagnostic: diagnostic.order or (COMMAND_LINE + 1, 0))
    if solved is None or any(diagnostic.severity == "error" for diagnostic in diagnostics):
        raise SettingsError(
            [diagnostic for diagnostic in diagnostics if diagnostic.severity == "error"]
        )

    # What was chosen for the user.
    change = {line.key: line.value for line in presets.mode(choice.mode or DEFAULT_MODE).lines}.get(
        _SIZE
    )
    if change and (size is None or _SIZE not in keys.user | keys.changed):
        names = " or ".join(change["smaller_of"])
        run.notes.insert(
            0, f"mode {choice.mode}: no smaller size ({names}), so the whole model is trained"
        )
    if not choice.model_named:
        changed = (
            f"; mode {choice.mode} makes it {choice.size}" if choice.size != FIRST_RUN[1] else ""
        )
        run.notes.insert(
            0, f"no model named: {':'.join(FIRST_RUN)}, the default of a first run{changed}"
        )
    elif size is not None and size.origin.layer == FAMILY_LAYER and run.device == "cpu":
        smallest = next(iter(config_of(family).SIZES))
        is_slow = "slow on a CPU; a quick size is"
        if size.value != smallest and not is_custom(family):
            run.notes.insert(
                0, f"no size named: {size.value}, {is_slow}  --model {family}:{smallest}"
            )
    is_chosen = MICRO in keys.user or values[MICRO].origin.layer == MODE_LAYER
    if is_chosen and values[MICRO].value not in (None, solved.micro_batch):
        run.notes.append(
            f"{MICRO}: {solved.micro_batch} instead of {values[MICRO].value}: {solved}"
        )
    resolved = Resolved(
        values=values,
        keys=keys,
        world_size=run.size,
        nproc=run.nproc,
        promises={k: bounds for k, bounds in values[PROMISE].value.items() if bounds},
        notes=run.notes,
        device=run.device,
        warnings=diagnostics,
        chosen=chosen,
        unpromised=unpromised,
    ).with_batching(solved, str(solved))
    try:
        resolved.settings  # noqa: B018
    except ValidationError as error:  # a custom task rejects several settings together
        key = ".".join(map(str, error.errors()[0]["loc"]))
        message = error.errors()[0]["msg"]
        together = errors.about(values, "model.family", f"{key}: {message}", key=key)
        raise SettingsError([together]) from None
    return resolved


def fetch_weights(model: Any) -> None:
    """Download the weights of a model of the hub in the section `model`, if the cache lacks them.

    Touches network and disk. Raises SettingsError.
    """
    if is_of_hub(model):
        from gearshift.launcher.config import hub  # for the runs that name one

        hub.fetch(model.pretrained, weights=True)


def _shipped_layers(choice: Choice, mode_file: Values) -> Iterator[Values]:
    """The layers of family, mode, limits profile and engine; the built-in one is the schema's own."""
    file = choice.file
    size = choice.size or ""
    infos = setting_infos(choice.family)

    def general(layer: str, folder: str, name: str | None) -> Values:
        """The settings of a file for all families, without those of `model` and `data` it lacks."""
        lines = presets.mode(name, folder).lines if name is not None else ()
        return layer_of(
            layer, (e for e in lines if e.key in infos or not e.key.startswith(("model.", "data.")))
        )

    declared = layer_of(FAMILY_LAYER, file.block("declared"))
    if "train.max_steps" in declared and declared["train.max_steps"].value is not None:
        # The limit of steps of a custom task overrides the epochs of all such tasks.
        declared.setdefault("train.epochs", replace(declared["train.max_steps"], value=None))
    first_run = {} if choice.model_named else {_SIZE: Setting(FIRST_RUN[1], _NO_MODEL)}
    yield from (layer_of(FAMILY_LAYER, file.block("default")), declared, first_run)
    for path in (("sizes", size), *(("given", key) for key in choice.given)):
        yield layer_of(FAMILY_LAYER, file.block(*path))
    yield general(MODE_LAYER, "modes", choice.mode)
    for kind, name in (("modes", choice.mode), ("stages", choice.stage)):
        if name is not None:
            yield layer_of(MODE_LAYER, file.block(kind, name))
            yield layer_of(MODE_LAYER, file.block("sizes", size, kind, name))
    yield mode_file
    yield general(PROFILE_LAYER, "profiles", choice.profile)
    if choice.engine is not None:
        origin = Origin(ENGINE_LAYER, f"engine {choice.engine}")
        yield {
            key: Setting(value, origin) for key, value in ENGINES[choice.engine].settings.items()
        }


def stack(family: str, values: dict[str, Setting], layers: Iterable[Values]) -> list[Diagnostic]:
    """Put `layers` on top of `values`, lowest first; the errors in them.

    An invalid value is left out, so that all errors of one start are found together. What a mode
    changes is the default below all layers of modes.
    """
    infos = setting_infos(family)
    sizes = tuple(config_of(family).SIZES)
    default = dict[str, Setting]()
    invalid: list[Diagnostic] = []
    for layer in layers:
        name = next((setting.origin.layer for setting in layer.values()), None)
        if name == MODE_LAYER and not default:
            default = dict(values)
        before = default if name == MODE_LAYER else dict(values)
        new: dict[str, Setting] = {}
        for key, setting in layer.items():
            if key not in infos:
                if setting.value is not None or key not in sections(family):  # an empty section
                    invalid.append(_input_errors().unknown_key(family, layer, key))
                continue
            if name in (MODE_LAYER, PROFILE_LAYER):
                value, how = presets.apply_change(setting.value, before[key].value, sizes)
                setting = Setting(value, replace(setting.origin, how=how))
            value, wrong = _read(family, key, setting, values[key])
            invalid += wrong
            if not wrong:
                value = {**values[key].value, **value} if key == PROMISE else value
                new[key] = values[key].overridden(value, setting.origin)
        values.update(new)
    return invalid


def _read(
    family: str, key: str, setting: Setting, below: Setting
) -> tuple[Any, Collection[Diagnostic]]:
    """The value of a setting as the schema reads it, and the errors in it; `below`: what it overrides."""
    info = setting_infos(family)[key]
    if message := unseen_by_schema(info, setting.value):
        unseen = {"type": "unseen", "loc": (), "msg": message}
        return None, [_input_errors().rejected(info, setting, unseen, below)]
    if key in PATHS and (problem := problem_of(text := str(setting.value))):
        message = f"{errors.display_name(key)} {shown(text[:SHOWN])} {problem}"
        return None, [errors.about({key: setting}, key, message)]
    try:
        tree = settings_class(family).model_validate(nested({key: setting.value}), strict=True)
    except ValidationError as error:
        first: dict[str | None, Diagnostic] = {}
        for failure in error.errors(include_url=False):
            # Without any of this setting, a custom task rejects several together: see `resolve`.
            if len(failure["loc"]) > key.count("."):
                rejected = _input_errors().rejected(info, setting, {**failure}, below)
                first.setdefault(rejected.key, rejected)
        return setting.value, first.values()
    value: Any = tree.model_dump(exclude_unset=True, by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value, ()


def _input_errors() -> ModuleType:
    """The module of these errors, which only they need."""
    from gearshift.launcher.config import input_errors

    return input_errors


def _scoped(setting: Setting, size: str | None, device: str) -> tuple[Setting, dict[str, str]]:
    """The promises that a run on `device` is given, and by measure why not the others.

    Of the layers that promise a measure the highest one counts whose scope has the run. A promise
    of a GPU stays on a CPU, where a comparison plans it; one that is withdrawn stays null.
    """
    given = dict[str, Any]()
    reasons: dict[str, str] = {}
    for promises, origin in setting.all_values:
        for measure, bounds in promises.items():
            sizes = bounds and bounds.get("sizes")
            reason = ""
            if bounds is None:
                reason = f"withdrawn by {origin.where}"
            elif sizes is not None and size not in sizes:
                reason = f"at size {' or '.join(sizes)}, not {size or 'one of your own'}"
            elif bounds.get("device") == "cpu" and device != "cpu":
                reason = "on a CPU"
            if measure not in given and reason:
                reasons.setdefault(measure, reason)
            if bounds is None or not reason:
                given.setdefault(measure, bounds)
    given = {measure: given[measure] for measure in setting.value if measure in given}
    if given != setting.value:
        setting = setting.overridden(given, replace(setting.origin, how="those that apply"))
    return setting, reasons
