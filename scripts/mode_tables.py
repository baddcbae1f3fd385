"""The tables of docs/modes.md: promises of modes, and their settings for each family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import modes as measured
from benchmarks.figures import listed, load_rows
from launcher.base.diagnostics import plain
from launcher.config import presets
from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs, Resolved, flatten
from launcher.config.resolve import resolve
from launcher.config.schema import sections, setting_infos
from launcher.config.settings_file import node_value
from models.catalog import FAMILIES, stages_of
from scripts.stated import STATED, Stated

RESULTS = Path(measured.__file__).parent / "results" / "modes.json"
HAS_ALL = Machine(
    cores=64, ram_bytes=2**39, gpus=1, device="cuda", cpu_bf16=True, gpu_bf16=True, compiler=True
)
"""A machine that supports every mode."""
HOME = {
    "event_seg": ("lite",),
    "language": ("resource-efficient",),
    "abr": ("fast", "ultra-fast", "benchmark"),
    "doc_translation": ("conservative",),
    "eeg_text": (),
}
"""The modes made for a family; staged for those that declare stages."""
GENERAL = ("lite", "resource-efficient", "fast", "ultra-fast", "conservative", "benchmark")
BATCH = ("train.micro_batch", "train.accumulation", "train.global_batch")
ONE = {"at_least": 1, "at_most": 1}


def promises() -> list[str]:
    """A row for each promise: of a mode in general, and of a family with its own."""
    head = ["| mode | of | promises, beside mode default |", "|---|---|---|"]
    rows = []
    for name in presets.modes():
        if promise := presets.mode(name).promise:
            rows.append(f"| `{name}` | any family | {_bounds(promise)} |")
        for family in FAMILIES:
            file = presets.family(family)
            blocks = [(family, file.modes.get(name))]
            blocks += [
                (f"{family}:{size}", block)
                for (size, mode), block in file.size_modes.items()
                if mode == name
            ]
            if name == "staged":
                blocks += [(f"{family}, stage {s}", block) for s, block in file.stages.items()]
            rows += [_row(name, whose, block) for whose, block in blocks if _promise(block)]
    return head + rows


def _row(mode: str, whose: str, block: presets.Block | None) -> str:
    return f"| `{mode}` | `{whose}` | {_bounds(_promise(block))} |"


def _promise(block: presets.Block | None) -> Mapping[str, Any]:
    """The promises of a block itself."""
    own: Mapping[str, Any] = node_value(block.settings).get("promise", {}) if block else {}
    return own


def _bounds(promise: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {_bound(bounds)}" for name, bounds in promise.items())


def _bound(bounds: Mapping[str, float]) -> str:
    if bounds == ONE:
        return "the same"
    texts = {"at_least": "at least", "at_most": "at most"}
    return " and ".join(f"{texts[key]} {plain(value)}" for key, value in bounds.items())


def stated() -> list[str]:
    """A row for each number that an original states: what is promised of it, what was measured."""
    head = ["| mode | of | stated by the original | promised here | measured |"]
    return [*head, "|---|---|---|---|---|", *(line for one in STATED for line in _stated(one))]


def _stated(one: Stated) -> Iterator[str]:
    start = f"| `{one.mode}` | `{one.model}` | {one.text} |"
    promised = promises_of(one)
    if not one.promises:
        yield f"{start} – | not measured: {one.why} |"
    for name in one.promises:
        if name in promised:
            yield f"{start} {name} {_bound(promised[name])} | {measured_text(one, name)} |"


def promises_of(one: Stated) -> Mapping[str, Any]:
    """The promises of the run that a statement is about."""
    sets = []
    if one.stage is not None:
        family = one.model.partition(":")[0]
        loads = next(stage.loads for stage in stages_of(family) if stage.name == one.stage)
        sets = [f"stages=[{one.stage}]", *([f"{loads}=earlier"] if loads else [])]
    return _resolved(one.model, one.mode, sets).promises


def measured_text(one: Stated, promise: str) -> str:
    """The measurement of a promise that holds a statement, from the results of the benchmark."""
    mode = f"{one.mode} · {one.stage}" if one.stage else one.mode
    family = one.model.partition(":")[0]
    for row in _rows()[2]:
        if (row.model.partition(":")[0], row.mode, row.promise) == (family, mode, promise):
            mark = measured.MARKS[row.kept] + (f": {row.why}" if row.why else "")
            return mark if row.measured is None else f"{row.measured:.3g} {mark}"
    return "not measured: promised since the last measurement"


def promised(family: str) -> list[str]:
    """A row for each setting of a family that its own modes change, a column for each of them.

    Of mode staged there is a column for each stage that it trains unasked.
    """
    file = presets.family(family)
    runs = {"default": _resolved(family, "default")}
    blocks = []
    for mode in HOME[family]:
        runs[mode] = _resolved(family, mode)
        blocks.append(file.modes[mode])
    for stage in stages_of(family):
        if not stage.optional:
            weights = [f"{stage.loads}=earlier"] if stage.loads else []
            sets = [f"stages=[{stage.name}]", *weights]
            runs[f"staged: {stage.name}"] = _resolved(family, "staged", sets)
            blocks.append(file.stages[stage.name])
    own = {key for block in blocks for key, _ in flatten(block.settings, sections(family))}
    keys = [key for key in setting_infos(family) if key in {*own, *BATCH} and key != "promise"]
    return [
        f"| setting | {' | '.join(f'`{name}`' for name in runs)} |",
        "|---|" + "---|" * len(runs),
        *(
            f"| `{key}` | {' | '.join(plain(run.values[key].value) for run in runs.values())} |"
            for key in keys
        ),
    ]


def _resolved(family: str, mode: str, sets: Sequence[str] = ()) -> Resolved:
    return resolve(CliArgs(model=family, mode=mode, sets=sets), HAS_ALL)


def general() -> list[str]:
    """A row for each setting that a mode changes in general, a column for each mode."""
    known = frozenset().union(*(sections(family) for family in FAMILIES))
    columns = {
        mode: {
            key: node_value(node) for key, node in flatten(presets.mode(mode).block.settings, known)
        }
        for mode in GENERAL
    }
    order = dict.fromkeys(key for family in FAMILIES for key in setting_infos(family))
    keys = [k for k in order if k != "promise" and any(k in found for found in columns.values())]
    return [
        f"| setting | {' | '.join(f'`{mode}`' for mode in GENERAL)} |",
        "|---|" + "---|" * len(GENERAL),
        *(f"| `{key}` | {' | '.join(_change(columns[m], key) for m in GENERAL)} |" for key in keys),
    ]


def change_text(change: Mapping[str, Any]) -> str:
    """A change as a table shows it: `× 0.5`, `at least 1`."""
    texts = [f"× {change['scale']:.6g}"] if "scale" in change else []
    texts += [f"{w} {plain(change[key])}" for key, w in presets.BOUNDS.items() if key in change]
    if "smaller_of" in change:
        texts.append(f"{' or '.join(change['smaller_of'])}, where that is smaller")
    return ", ".join(texts)


def _change(column: Mapping[str, Any], key: str) -> str:
    if key not in column:
        return ""
    value = column[key]
    return change_text(value) if presets.is_change(value) else plain(value)


def kept() -> list[str]:
    """A row for each measured promise, from the results of the benchmark."""
    return measured.table(_rows()[2]).splitlines()


def commands_kept() -> list[str]:
    """The commands of the measurement."""
    return measured.commands(_rows()[2]).splitlines()


def measured_kept() -> list[str]:
    """The command that ran all of them, and its machine."""
    command, where, _ = _rows()
    return [f"`{command}`, on: {listed(where)}."]


def staged(family: str) -> list[str]:
    """A row for each measured promise of a family's stages."""
    return measured.table(_staged(family)).splitlines()


def measured_staged(family: str) -> list[str]:
    """The commands that measured them, and their machine."""
    lines = dict.fromkeys(f"`{row.command}`" for row in _staged(family))
    return [f"{', '.join(lines)}, on: {listed(_rows()[1])}."]


def _staged(family: str) -> list[measured.Row]:
    return [
        row
        for row in _rows()[2]
        if row.model.partition(":")[0] == family and row.mode.partition(" · ")[0] == "staged"
    ]


def _rows() -> tuple[str, dict[str, str], list[measured.Row]]:
    return load_rows(RESULTS, measured.Row)


TABLES: dict[str, Callable[[], list[str]]] = {
    "promises": promises,
    "stated": stated,
    "promises kept": kept,
    "commands promises": commands_kept,
    "measured promises": measured_kept,
    "general": general,
    **{f"promised {family}": partial(promised, family) for family in HOME},
    **{f"staged {family}": partial(staged, family) for family in HOME},
    **{f"measured staged {family}": partial(measured_staged, family) for family in HOME},
}
"""By the name in the page."""
