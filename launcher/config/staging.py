"""The stages that a run is asked for, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from launcher.base.diagnostics import Fault, nearest, shown
from launcher.config import custom_config, errors, yaml_source
from launcher.config.entries import Entry, typed_list
from launcher.config.nodes import Unreadable
from launcher.config.resolved import STAGED, Value
from models.catalog import FAMILIES, Stage, is_own, stages_of

KEY = "stages"


def asked(entry: Entry | None) -> tuple[str, ...]:
    """The names in a setting `stages`, as far as it can be read."""
    value = None if entry is None else entry.value
    if isinstance(value, str):
        try:
            value = yaml_source.value(value)
        except Unreadable:
            return ()
        value = typed_list(value) if isinstance(value, str) else value
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def declared(family: str) -> tuple[Stage, ...]:
    """The stages of a family, or of a task of the person's own. Raises SettingsError."""
    return custom_config.stages(family) if is_own(family) else stages_of(family)


def chosen(names: Sequence[str], known: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages called so, in their order; of no names those that are not optional."""
    return tuple(one for one in known if (one.name in names if names else not one.optional))


def check(values: Mapping[str, Value]) -> Iterator[Fault]:
    """What is wrong with mode staged, with the names in `stages`, and with where they begin."""
    family, is_staged = values["model.family"].value, values["mode"].value == STAGED
    names, known = values[KEY].value, declared(family)
    if not known:
        wrong = [key for key, asks in (("mode", is_staged), (KEY, bool(names))) if asks]
        yield from (_undeclared(values, key) for key in wrong)
    elif names and not is_staged:
        yield _fault(
            values,
            f"stages {shown(names)} counts only in mode staged, and it is {values['mode'].value}",
            mend="write  --mode staged",
        )
    elif faults := list(_misnamed(values, known)):
        yield from faults
    elif len(names) == 1:
        yield from _without_weights(values, chosen(names, known)[0])


def _undeclared(values: Mapping[str, Value], key: str) -> Fault:
    staged = [name for name, entry in FAMILIES.items() if entry.stages]
    value = values[key]
    return Fault(
        f"{key} {shown(value.value)} needs stages, and {values['model.family'].value} declares "
        "none",
        key=key,
        value=value.value,
        place=errors.place(key, value.origin),
        legal=f"families that declare stages: {', '.join(staged)}",
        mend="write  --mode resource-efficient  to lower the peak of memory in one run",
    )


def _misnamed(values: Mapping[str, Value], stages: Sequence[Stage]) -> Iterator[Fault]:
    """Names that there are not; else their order, where it is not the declared one."""
    names = values[KEY].value
    known = [one.name for one in stages]
    unknown = [name for name in names if name not in known]
    for name in unknown:
        near = nearest(name, known)
        mend = near and f"write  --stage {near}"
        if near and len(names) > 1:
            mended = [near if one == name else one for one in names]
            mend = errors.write_over(KEY, values[KEY].origin, _line(mended))
        yield _fault(values, f"stage '{name}' is not known", known, near, mend)
    ordered = [name for name in known if name in names]
    if not unknown and ordered != list(names):
        told = "twice the same" if len(ordered) < len(names) else "not in their order"
        near = _line(ordered)
        mend = errors.write_over(KEY, values[KEY].origin, near)
        yield _fault(values, f"stages {shown(names)} are {told}", known, near, mend)


def _without_weights(values: Mapping[str, Value], stage: Stage) -> Iterator[Fault]:
    if stage.loads is None or values[stage.loads].value is not None:
        return
    whose = " or ".join(stage.of)
    yield Fault(
        f"stage {stage.name} needs the weights of stage {whose}, and nothing says where they are",
        key=stage.loads,
        place=errors.place(KEY, values[KEY].origin),
        legal=f"--from RUN, a run of stage {whose}; or all stages, --mode staged",
        mend="write  --from RUN",
    )


def _line(names: Sequence[str]) -> str:
    """The names as one types them, without a blank that a shell would cut at."""
    return f"[{','.join(names)}]"


def _fault(
    values: Mapping[str, Value],
    what: str,
    legal: Sequence[str] = (),
    near: str | None = None,
    mend: str | None = None,
) -> Fault:
    return Fault(
        what,
        key=KEY,
        value=values[KEY].value,
        place=errors.place(KEY, values[KEY].origin),
        legal=", ".join(legal) or None,
        nearest=near,
        mend=mend,
    )
