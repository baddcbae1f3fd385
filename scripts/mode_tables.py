"""The tables of docs/modes.md: promises of modes, and their settings for each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import modes as measured
from benchmarks.figures import load_rows, markdown
from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config import presets
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.scaled_change import is_change
from gearshift.launcher.config.schema import config_of, setting_infos
from gearshift.models.catalog import FAMILIES, stages_of
from scripts.stated import STATED, Stated

RESULTS = Path(measured.__file__).parent / "results" / "modes.json"
HAS_ALL = Machine(
    cores=64, ram_bytes=2**39, gpus=1, device="cuda", cpu_bf16=True, gpu_bf16=True, compiler=True
)
"""A machine that supports every mode."""
GENERAL = ("lite", "resource-efficient", "fast", "ultra-fast", "conservative", "benchmark")
ONE = {"at_least": 1, "at_most": 1}


def promises() -> list[str]:
    """A row for each promise of a mode: in general, and of the families with an own one."""
    owners: dict[tuple[str, str], list[str]] = {}
    for name in presets.modes():
        if promise := presets.mode(name).promise:
            owners[name, _bounds(promise)] = ["any family"]
        for family in FAMILIES:
            file = presets.family(family)
            blocks = [(family, file.block("modes", name))]
            blocks += [
                (f"{family}:{size}", file.block("sizes", size, "modes", name))
                for size in config_of(family).SIZES
            ]
            if name == "staged":
                blocks += [
                    (f"{family}, stage {stage.name}", file.block("stages", stage.name))
                    for stage in stages_of(family)
                ]
            for owner, block in blocks:
                for line in block:
                    if line.key == "promise":
                        owners.setdefault((name, _bounds(line.value)), []).append(f"`{owner}`")
    rows = ([f"`{mode}`", ", ".join(of), text] for (mode, text), of in owners.items())
    return markdown(["mode", "of", "promises, beside mode default"], rows)


def _bounds(promise: Mapping[str, Mapping[str, float] | None]) -> str:
    return ", ".join(f"{name} {_bound(bounds)}" for name, bounds in promise.items())


def _bound(bounds: Mapping[str, Any] | None) -> str:
    """The bounds, and where they are promised."""
    if bounds is None:
        return "withdrawn"
    ends = {end: bounds[end] for end in ("at_least", "at_most") if end in bounds}
    text = " and ".join(f"{end.replace('_', ' ')} {plain(value)}" for end, value in ends.items())
    scope = [f"size {' or '.join(bounds['sizes'])}"] if "sizes" in bounds else []
    scope += [f"on a {bounds['device'].upper()}"] if "device" in bounds else []
    return ("the same" if ends == ONE else text) + (f" ({', '.join(scope)})" if scope else "")


def stated() -> list[str]:
    """The numbers that originals state, with their promises and measurements.

    Statements about a mode that are not measured share a row.
    """
    rows = []
    for (mode, model, has_none), group in groupby(
        STATED, lambda one: (one.mode, one.model, bool(one.why))
    ):
        start = [f"`{mode}`", f"`{model}`"]
        if has_none:
            texts, reasons = zip(*((one.text, one.why) for one in group), strict=True)
            why = "; ".join(dict.fromkeys(reasons))
            rows.append([*start, "; ".join(texts), "–", f"not measured: {why}"])
        for one in () if has_none else group:
            promised = promises_of(one)
            names = [name for name in one.promises if name in promised]
            bounds = ", ".join(f"{name} {_bound(promised[name])}" for name in names)
            rows.append(
                [*start, one.text, bounds, ", ".join(measured_text(one, name) for name in names)]
            )
    return markdown(["mode", "of", "stated by the original", "promised here", "measured"], rows)


def promises_of(one: Stated) -> Mapping[str, Any]:
    """The promises of the run that a statement is about."""
    sets = []
    if one.stage is not None:
        family = one.model.partition(":")[0]
        loads = next(stage.loads for stage in stages_of(family) if stage.name == one.stage)
        sets = [f"stages=[{one.stage}]", *([f"{loads}=earlier"] if loads else [])]
    return resolve(CliArgs(model=one.model, mode=one.mode, sets=sets), HAS_ALL).promises


def measured_text(one: Stated, promise: str) -> str:
    """The measurement of a promise that holds a statement, from the results of the benchmark."""
    mode = f"{one.mode} · {one.stage}" if one.stage else one.mode
    family = one.model.partition(":")[0]
    for row in load_rows(RESULTS, measured.Row)[2]:
        if (row.model.partition(":")[0], row.mode, row.promise) == (family, mode, promise):
            value = "" if row.measured is None else f"{row.measured:.3g} "
            return value + measured.mark(row)
    return "not measured: promised since the last measurement"


def general() -> list[str]:
    """A row for each setting that a mode changes in general, a column for each mode."""
    columns = {
        mode: {line.key: line.value for line in presets.mode(mode).lines} for mode in GENERAL
    }
    order = dict.fromkeys(key for family in FAMILIES for key in setting_infos(family))
    keys = [k for k in order if k != "promise" and any(k in found for found in columns.values())]
    heads = ["setting", *(f"`{mode}`" for mode in GENERAL)]
    return markdown(
        heads, ([f"`{key}`", *(_change(columns[m], key) for m in GENERAL)] for key in keys)
    )


_BOUNDS = {"at_least": "at least", "at_most": "at most"}


def _change(column: Mapping[str, Any], key: str) -> str:
    """A change as a table shows it: `× 0.5`, `at least 1`; or a value, or nothing."""
    value = column.get(key, "")
    if not is_change(value):
        return plain(value)
    texts = [f"× {value['scale']:.6g}"] if "scale" in value else []
    texts += [f"{_BOUNDS[end]} {plain(value[end])}" for end in _BOUNDS if end in value]
    if "smaller_of" in value:
        texts.append(f"{' or '.join(value['smaller_of'])}, where that is smaller")
    return ", ".join(texts)


TABLES: dict[str, Callable[[], list[str]]] = {
    "promises": promises,
    "stated": stated,
    "general": general,
}
"""By the name in the page."""
