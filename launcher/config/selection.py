"""The family, size, mode, stages and engine of a run, which decide the layers of its settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match, shown
from launcher.config import copied_task, custom_task, errors, presets, settings_file
from launcher.config.custom_task import FOLDER
from launcher.config.layers import CHOICES, chosen_entries
from launcher.config.provenance import (
    STAGED_MODE,
    CliArgs,
    Entry,
    Resolved,
    Setting,
    find_node,
    typed_list,
)
from launcher.config.resumed_settings import Base
from launcher.config.schema import (
    PRETRAINED,
    config_of,
    model_part,
    replaces_size,
    setting_infos,
)
from launcher.config.settings_file import Unreadable, node_value
from models.catalog import FAMILIES, Stage, is_custom, stages_of

KEY = "stages"
FIRST_RUN = ("language", "small")
"""The family and size of a run without --model."""
_NULL = (None, "null", "~")
_CHANGEABLE = ("engine.name", FOLDER)
"""Choices that a resumed run takes from the new arguments."""


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; an invalid choice is None."""

    family: str
    size: str | None
    mode: str | None
    engine: str | None
    model_named: bool
    diagnostics: Sequence[Diagnostic] = ()
    """Errors of a custom task that cannot be used; `family` is then another one."""
    stages: Sequence[str] = ()
    """The value of `stages`."""
    profile: str | None = None
    """None: the default, which changes nothing."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The settings with a block of their own in the family's file that have a value."""

    @property
    def model(self) -> str | None:
        """The name of the model within its family."""
        return model_part(self.family, self.size, self.given.get(PRETRAINED))

    @property
    def stage(self) -> str | None:
        """The only stage to train; None: another mode, or several stages."""
        only = self.stages[0] if len(self.stages) == 1 else None
        known = {stage.name for stage in declared_stages(self.family)}
        return only if self.mode == STAGED_MODE and only in known else None


def choose(args: CliArgs, base: Base | None = None) -> Choice:
    """The family, size, mode and engine, each from the highest layer that sets it.

    A resumed run keeps family, size and mode of its `base`; a different one in `args` is reported
    later, with all other differences.
    """
    entries = chosen_entries(args)
    if base is not None:
        before = {key: entry for key in CHOICES if (entry := base.chosen(key)) is not None}
        fixed = {key: entry for key, entry in before.items() if key not in _CHANGEABLE}
        entries = {**before, **entries, **fixed}
    family, diagnostics = _family(entries)
    given = _given(args, base, family)
    is_replaced = replaces_size(family, given.get(PRETRAINED))
    named = "model.family" in entries or "model.size" in entries or is_replaced
    mode = _one_of(entries.get("mode"), presets.modes(), "default")
    sizes = tuple(config_of(family).SIZES)
    size = _one_of(entries.get("model.size"), sizes, None)
    if "model.size" not in entries and sizes:
        size = _default_size(family, mode, sizes, named)
    size = None if is_replaced else size
    engine = _one_of(entries.get("engine.name"), ENGINES, None)
    profile = _one_of(entries.get("limits.profile"), presets.profiles(), None)
    stages = requested_stages(entries.get(KEY))
    return Choice(family, size, mode, engine, named, diagnostics, stages, profile, given)


def _given(args: CliArgs, base: Base | None, family: str) -> dict[str, Any]:
    """The value of each setting that the user gives, and that the family's file has a block for.

    A setting without effect does not count.
    """
    keys, infos = file_of(family).given, setting_infos(family)
    before = {} if base is None else {key: base.chosen(key) for key in keys}
    entries = {**before, **chosen_entries(args, keys)}
    values = {
        key: entry.value
        for key in keys
        if (entry := entries.get(key)) is not None and entry.value not in _NULL
    }
    return {key: value for key, value in values.items() if {*infos[key].unless} <= {*values}}


def _family(entries: Mapping[str, Entry]) -> tuple[str, list[Diagnostic]]:
    entry = entries.get("model.family")
    if entry is None or not isinstance(entry.value, str) or not is_custom(entry.value):
        return _one_of(entry, FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0], []
    folder = entries.get(FOLDER)
    if folder is not None and folder.option is None:  # of a file, maybe that of a copied run
        file = Path(folder.origin.where.rpartition(":")[0])
        place = copied_task.folder_for(entry.value, folder.value, file.parent)
        entries = {**entries, FOLDER: replace(folder, value=place)}
    custom_task.add_search_folder(entries[FOLDER].value if FOLDER in entries else None)
    try:
        sizes = custom_task.task_config(entry.value).SIZES
        custom_task.task_family_file(entry.value)
        custom_task.task_stages(entry.value)
    except SettingsError as error:
        found = errors.custom_task_errors(error, entry.origin)
        return FIRST_RUN[0], [replace(diagnostic, order=entry.order) for diagnostic in found]
    return entry.value, list(_custom_task_errors(entry.value, bool(sizes), entries))


def _custom_task_errors(
    name: str, has_sizes: bool, entries: Mapping[str, Entry]
) -> Iterator[Diagnostic]:
    size, folder = entries.get("model.size"), entries.get(FOLDER)
    if size is not None and not has_sizes:
        where = errors.where("model.size", size.origin)
        message = f"{name} has no sizes, so size {size.value!r} cannot be chosen"
        yield Diagnostic(message, key="model.size", where=where, order=size.order)
    path = None if folder is None else folder.value
    if folder is not None and isinstance(path, str) and custom_task.is_other_task(name, path):
        yield Diagnostic(
            f"{name} in {path} cannot be used: this process has imported another module of "
            "that name",
            key=FOLDER,
            value=path,
            where=errors.where(FOLDER, folder.origin),
            allowed=f"{custom_task.task_folder(name)}, or a new process",
            order=folder.order,
        )


def file_of(family: str) -> presets.FamilyFile:
    """The shipped file of a family, or what a custom task's class declares. Reads the disk."""
    return custom_task.task_family_file(family) if is_custom(family) else presets.family(family)


def _default_size(family: str, mode: str | None, sizes: Sequence[str], named: bool) -> str:
    file = file_of(family)
    default = find_node((file.declared or file.default).settings, "model.size")
    size: str = FIRST_RUN[1]
    if named:
        size = default.value if default is not None and default.value in sizes else sizes[0]
    blocks = [presets.mode(mode).block] if mode else []
    if mode is not None and mode in file.modes:
        blocks.append(file.modes[mode])
    changed = size
    for block in blocks:
        if (node := find_node(block.settings, "model.size")) is not None:
            change = node_value(node)
            is_change = presets.is_change(change)
            changed = presets.apply_change(change, size, sizes) if is_change else change
    return changed


def _one_of(entry: Entry | None, options: Any, default: str | None) -> str | None:
    if entry is None:
        return default
    return entry.value if isinstance(entry.value, str) and entry.value in options else None


def requested_stages(entry: Entry | None) -> tuple[str, ...]:
    """The names in the setting `stages`, as far as it can be read."""
    value = None if entry is None else entry.value
    if isinstance(value, str):
        try:
            value = settings_file.parse_yaml_value(value)
        except Unreadable:
            return ()
        value = typed_list(value) if isinstance(value, str) else value
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family or of a custom task. Raises SettingsError."""
    return custom_task.task_stages(family) if is_custom(family) else stages_of(family)


def without_first_weights(resolved: Resolved) -> Resolved:
    """`resolved` without the weights that its stages start with: their values do not matter."""
    settings = resolved.settings
    stages = {one.name: one for one in declared_stages(settings.model.family)}
    loads = [stages[name].loads for name in settings.stages]
    fields = {key.removeprefix("model."): None for key in loads if key is not None}
    model = settings.model.model_copy(update=fields)
    return replace(resolved, settings=settings.model_copy(update={"model": model}))


def select_stages(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages with these names, in declared order; without names all that are not optional."""
    return tuple(one for one in known if (one.name in names if names else not one.optional))


def check_stages(values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Errors of mode staged, of the names in `stages`, and of missing first weights."""
    family, is_staged = values["model.family"].value, values["mode"].value == STAGED_MODE
    names, known = values[KEY].value, declared_stages(family)
    if not known:
        invalid = [key for key, is_set in (("mode", is_staged), (KEY, bool(names))) if is_set]
        yield from (_no_stages(values, key) for key in invalid)
    elif names and not is_staged:
        mode = values["mode"].value
        message = f"stages {shown(names)} needs mode staged, and the mode is {mode}"
        yield _stages_error(values, message, fix="--mode staged")
    elif diagnostics := list(_unknown_stages(values, known)):
        yield from diagnostics
    elif len(names) == 1:
        yield from _missing_weights(values, select_stages(names, known)[0])


def _no_stages(values: Mapping[str, Setting], key: str) -> Diagnostic:
    staged = [name for name, entry in FAMILIES.items() if entry.stages]
    return errors.about_value(
        values,
        key,
        f"needs stages, and {values['model.family'].value} declares none",
        allowed=f"families that declare stages: {', '.join(staged)}",
        fix="--mode resource-efficient  to lower peak memory in one run",
    )


def _unknown_stages(values: Mapping[str, Setting], stages: Sequence[Stage]) -> Iterator[Diagnostic]:
    """Errors for unknown names; without any, for a wrong order."""
    names = values[KEY].value
    known = [stage.name for stage in stages]
    unknown = [name for name in names if name not in known]
    for name in unknown:
        near = nearest_match(name, known)
        fix = near and f"--stage {near}"
        if near and not values[KEY].origin.where.startswith("--stage "):
            corrected = [near if one == name else one for one in names]
            fix = errors.fix_line(KEY, values[KEY].origin, _typed(corrected))
        yield _stages_error(values, f"unknown stage '{name}'", known, near, fix)
    ordered = [name for name in known if name in names]
    if not unknown and ordered != list(names):
        problem = "name one twice" if len(ordered) < len(names) else "are not in declared order"
        near = _typed(ordered)
        fix = errors.fix_line(KEY, values[KEY].origin, near)
        yield _stages_error(values, f"stages {shown(names)} {problem}", known, near, fix)


def _missing_weights(values: Mapping[str, Setting], stage: Stage) -> Iterator[Diagnostic]:
    if stage.loads is None or values[stage.loads].value is not None:
        return
    earlier = " or ".join(stage.of)
    yield Diagnostic(
        f"stage {stage.name} starts from the weights of stage {earlier}, and no run is given",
        key=stage.loads,
        where=errors.where(KEY, values[KEY].origin),
        allowed=f"--from RUN, a run of stage {earlier}; or all stages, --mode staged",
        fix="--from RUN",
    )


def _typed(names: Sequence[str]) -> str:
    """The names as a list without blanks, at which a shell would split it."""
    return f"[{','.join(names)}]"


def _stages_error(
    values: Mapping[str, Setting],
    message: str,
    allowed: Sequence[str] = (),
    near: str | None = None,
    fix: str | None = None,
) -> Diagnostic:
    listed = ", ".join(allowed) or None
    return errors.about(values, KEY, message, allowed=listed, did_you_mean=near, fix=fix)
