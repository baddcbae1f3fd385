"""The family, size, mode and engine of a run, which decide what layers of settings there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match, shown
from launcher.config import custom_task, errors, presets, settings_file
from launcher.config import layers as typed
from launcher.config.custom_task import FOLDER
from launcher.config.provenance import STAGED_MODE, CliArgs, Entry, Setting, find_node, typed_list
from launcher.config.resumed_settings import Base
from launcher.config.schema import config_of
from launcher.config.settings_file import Unreadable, node_value
from models.catalog import FAMILIES, Stage, is_custom, stages_of

_MAY_MOVE = ("engine.name", FOLDER)
"""Choices in which a run that goes on follows what is typed now."""
FIRST_RUN = ("language", "small")
"""The family and size of a run for which no model was named."""


@dataclass(frozen=True)
class Choice:
    """What decides which layers there are; faulty choices stand as None."""

    family: str
    size: str | None
    mode: str | None
    engine: str | None
    model_named: bool
    diagnostics: Sequence[Diagnostic] = ()
    """Of a task of the person's own that cannot be used; another family stands in its place."""
    stages: Sequence[str] = ()
    """What was typed of `stages`."""
    profile: str | None = None
    """None: the default, which changes nothing."""

    @property
    def stage(self) -> str | None:
        """The one stage that is trained; None: it is not mode staged, or there are several."""
        only = self.stages[0] if len(self.stages) == 1 else None
        known = {one.name for one in declared_stages(self.family)}
        return only if self.mode == STAGED_MODE and only in known else None


def choose(words: CliArgs, files: typed.Files, base: Base | None = None) -> Choice:
    """The family, size, mode and engine, each from the highest layer that names one.

    What goes on keeps family, size and mode of its `base`: another one that is typed is refused
    later, beside all else that differs.
    """
    said = typed.chosen_entries(words, files)
    if base is not None:
        had = {key: entry for key in typed.CHOICES if (entry := base.chosen(key)) is not None}
        said = {**had, **said, **{key: had[key] for key in had if key not in _MAY_MOVE}}
    named = "model.family" in said or "model.size" in said
    family, diagnostics = _family(said)
    mode = _one_of(said.get("mode"), presets.modes(), "default")
    sizes = tuple(config_of(family).SIZES)
    size = _one_of(said.get("model.size"), sizes, None)
    if "model.size" not in said and sizes:
        size = _default_size(family, mode, sizes, named)
    engine = _one_of(said.get("engine.name"), ENGINES, None)
    profile = _one_of(said.get("limits.profile"), presets.profiles(), None)
    stages = requested_stages(said.get("stages"))
    return Choice(family, size, mode, engine, named, diagnostics, stages, profile)


def _family(said: Mapping[str, Entry]) -> tuple[str, list[Diagnostic]]:
    """The model that was named, and what is wrong with it where it is a task of one's own."""
    entry = said.get("model.family")
    if entry is None or not isinstance(entry.value, str) or not is_custom(entry.value):
        return _one_of(entry, FAMILIES, FIRST_RUN[0]) or FIRST_RUN[0], []
    custom_task.add_search_folder(said[FOLDER].value if FOLDER in said else None)
    try:
        sizes = custom_task.task_config(entry.value).SIZES
        custom_task.task_family_file(entry.value)
        custom_task.task_stages(entry.value)
    except SettingsError as error:
        found = errors.custom_task_errors(error, entry.origin)
        return FIRST_RUN[0], [replace(fault, order=entry.order) for fault in found]
    return entry.value, list(_of_own(entry.value, bool(sizes), said))


def _of_own(name: str, has_sizes: bool, said: Mapping[str, Entry]) -> Iterator[Diagnostic]:
    """What is wrong with the size and the folder of a task that is there."""
    size, folder = said.get("model.size"), said.get(FOLDER)
    if size is not None and not has_sizes:
        what = f"{name} has no sizes, and size {size.value!r} is asked for"
        said_at = errors.where("model.size", size.origin)
        yield Diagnostic(what, key="model.size", where=said_at, order=size.order)
    place = None if folder is None else folder.value
    if folder is not None and isinstance(place, str) and custom_task.is_other_task(name, place):
        yield Diagnostic(
            f"{name} of {place} cannot be used: this process has imported another one",
            key=FOLDER,
            value=place,
            where=errors.where(FOLDER, folder.origin),
            allowed=f"{custom_task.task_folder(name)}, or a process of its own",
            order=folder.order,
        )


def file_of(family: str) -> presets.FamilyFile:
    """What the program, or the class of a task of one's own, says of a family. Reads the disk."""
    return custom_task.task_family_file(family) if is_custom(family) else presets.family(family)


def _default_size(family: str, mode: str | None, sizes: Sequence[str], named: bool) -> str:
    file = file_of(family)
    default = find_node((file.declared or file.default).settings, "model.size")
    size: str = FIRST_RUN[1]
    if named:
        size = default.value if default is not None and default.value in sizes else sizes[0]
    blocks = [presets.mode(mode).block] if mode else []
    blocks += [b for m, b in file.modes.items() if m == mode]
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


KEY = "stages"


def requested_stages(entry: Entry | None) -> tuple[str, ...]:
    """The names in a setting `stages`, as far as it can be read."""
    value = None if entry is None else entry.value
    if isinstance(value, str):
        try:
            value = settings_file.parse_yaml_value(value)
        except Unreadable:
            return ()
        value = typed_list(value) if isinstance(value, str) else value
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family, or of a task of the person's own. Raises SettingsError."""
    return custom_task.task_stages(family) if is_custom(family) else stages_of(family)


def select_stages(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages called so, in their order; of no names those that are not optional."""
    return tuple(one for one in known if (one.name in names if names else not one.optional))


def check_stages(values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """What is wrong with mode staged, with the names in `stages`, and with where they begin."""
    family, is_staged = values["model.family"].value, values["mode"].value == STAGED_MODE
    names, known = values[KEY].value, declared_stages(family)
    if not known:
        wrong = [key for key, asks in (("mode", is_staged), (KEY, bool(names))) if asks]
        yield from (_undeclared(values, key) for key in wrong)
    elif names and not is_staged:
        yield _fault(
            values,
            f"stages {shown(names)} counts only in mode staged, and it is {values['mode'].value}",
            fix="--mode staged",
        )
    elif diagnostics := list(_misnamed(values, known)):
        yield from diagnostics
    elif len(names) == 1:
        yield from _without_weights(values, select_stages(names, known)[0])


def _undeclared(values: Mapping[str, Setting], key: str) -> Diagnostic:
    staged = [name for name, entry in FAMILIES.items() if entry.stages]
    value = values[key]
    return Diagnostic(
        f"{key} {shown(value.value)} needs stages, and {values['model.family'].value} declares "
        "none",
        key=key,
        value=value.value,
        where=errors.where(key, value.origin),
        allowed=f"families that declare stages: {', '.join(staged)}",
        fix="--mode resource-efficient  to lower the peak of memory in one run",
    )


def _misnamed(values: Mapping[str, Setting], stages: Sequence[Stage]) -> Iterator[Diagnostic]:
    """Names that there are not; else their order, where it is not the declared one."""
    names = values[KEY].value
    known = [one.name for one in stages]
    unknown = [name for name in names if name not in known]
    for name in unknown:
        near = nearest_match(name, known)
        fix = near and f"--stage {near}"
        if near and len(names) > 1:
            mended = [near if one == name else one for one in names]
            fix = errors.fix_line(KEY, values[KEY].origin, _line(mended))
        yield _fault(values, f"unknown stage '{name}'", known, near, fix)
    ordered = [name for name in known if name in names]
    if not unknown and ordered != list(names):
        told = "twice the same" if len(ordered) < len(names) else "not in their order"
        near = _line(ordered)
        fix = errors.fix_line(KEY, values[KEY].origin, near)
        yield _fault(values, f"stages {shown(names)} are {told}", known, near, fix)


def _without_weights(values: Mapping[str, Setting], stage: Stage) -> Iterator[Diagnostic]:
    if stage.loads is None or values[stage.loads].value is not None:
        return
    whose = " or ".join(stage.of)
    yield Diagnostic(
        f"stage {stage.name} needs the weights of stage {whose}, and nothing says where they are",
        key=stage.loads,
        where=errors.where(KEY, values[KEY].origin),
        allowed=f"--from RUN, a run of stage {whose}; or all stages, --mode staged",
        fix="--from RUN",
    )


def _line(names: Sequence[str]) -> str:
    """The names as one types them, without a blank that a shell would cut at."""
    return f"[{','.join(names)}]"


def _fault(
    values: Mapping[str, Setting],
    what: str,
    allowed: Sequence[str] = (),
    near: str | None = None,
    fix: str | None = None,
) -> Diagnostic:
    return Diagnostic(
        what,
        key=KEY,
        value=values[KEY].value,
        where=errors.where(KEY, values[KEY].origin),
        allowed=", ".join(allowed) or None,
        did_you_mean=near,
        fix=fix,
    )
