"""The stages that a run is asked for, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.base.diagnostics import Diagnostic, nearest_match, shown
from launcher.config import custom_config, errors, yaml_source
from launcher.config.entries import Entry, typed_list
from launcher.config.nodes import Unreadable
from launcher.config.resolved import STAGED_MODE, Setting
from models.catalog import FAMILIES, Stage, is_custom, stages_of

KEY = "stages"


def requested_stages(entry: Entry | None) -> tuple[str, ...]:
    """The names in a setting `stages`, as far as it can be read."""
    value = None if entry is None else entry.value
    if isinstance(value, str):
        try:
            value = yaml_source.parse_yaml_value(value)
        except Unreadable:
            return ()
        value = typed_list(value) if isinstance(value, str) else value
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def declared_stages(family: str) -> tuple[Stage, ...]:
    """The stages of a family, or of a task of the person's own. Raises SettingsError."""
    return custom_config.task_stages(family) if is_custom(family) else stages_of(family)


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
