"""The facts of one run as texts: outcome, what to do, settings, time, machine, commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from gearshift.launcher.base.diagnostics import PROGRAM, from_here, plain
from gearshift.launcher.config.provenance import FITTED_LAYERS, LAYERS, USER_LAYERS
from gearshift.launcher.report import page
from gearshift.launcher.report.run_record import RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.logging import console_text
from gearshift.training.logging.quantities import amount, counted, duration, real, size

Row = tuple[str, ...]
_CHOSEN = (*FITTED_LAYERS, *USER_LAYERS)
"""Layers above the mode."""
_OWN_DATA = "of the run"
_INVALID = (KeyError, TypeError, ValueError, AttributeError)
"""Raised for a line of another version."""


def status(run: RunRecord) -> tuple[str, str]:
    """How the run ended, and the style of that word."""
    unfinished = "not finished" if run.events or run.steps else "not started"
    word = str(run.result.get("status", unfinished))
    return word, {"completed": "good", "failed": "bad"}.get(word, "warn")


def outcome(run: RunRecord) -> str:
    """The end of the run in a line, after its status."""
    result = run.result
    text = counted(run.steps, "step")
    if (epochs := result.get("epochs")) is not None:
        part = f"{100 * epochs:.2g}% of an epoch"
        text += f" ({part if 0 < epochs < 1 else counted(float(f'{epochs:.3g}'), 'epoch')})"
    return text + (f"; {result['reason']}" if result.get("reason") else "")


def title(run: RunRecord) -> str:
    """Model, mode and engine."""
    names = ("model", "mode", "engine")
    parts = [str(run.result.get(name) or _setting(run, name)) for name in names]
    stage = run.result.get("stage")
    return ", ".join(filter(None, [parts[0], f"stage {stage}" if stage else "", *parts[1:]]))


def figures(run: RunRecord) -> dict[str, str]:
    """The numbers that are looked for first; a dash for what is unknown."""
    result = run.result
    peaks = run.result.get("peak_memory_bytes") or {}
    best = result.get("best")
    wall_s = result.get("wall_s")
    known = [
        f"{side} {size(peaks[side])}" for side in ("device", "host") if peaks.get(side) is not None
    ]
    speed, parameters = (result.get(name) for name in ("samples_per_s", "parameters"))
    return {
        "steps": f"{run.steps:,}",
        "time": "–" if wall_s is None else duration(wall_s),
        "best": console_text.render_best(best) if best else "–",
        "samples/s": "–" if speed is None else amount(speed),
        "parameters": "–" if parameters is None else amount(parameters),
        "peak memory": ", ".join(known) or "–",
    }


def findings(runs: Sequence[RunRecord]) -> list[Row]:
    """What was seen, the likely cause, and the next command: faults, and the end of a run that is not
    complete; of several runs below the name of each.
    """
    rows: list[Row] = []
    for run in runs:
        advice = [
            tuple(str(event["facts"].get(name, "")) for name in ("seen", "cause", "fix"))
            for event in run.events
            if event["kind"] in ("advice", "warning") and "fault" in event["facts"]
        ]
        status = run.result.get("status")
        lines = dict(commands(run))
        if status == "stopped" or (status == "failed" and not advice):
            log = shlex.quote(from_here(run.folder.absolute() / run_folder.LOG))
            again = lines.get("resume", lines["repeat"]) if status == "stopped" else f"less {log}"
            advice.append(
                (f"{status} at step {run.steps:,}", str(run.result.get("reason") or ""), again)
            )
        rows += [(run.name, *row) if runs[1:] else row for row in dict.fromkeys(advice)]
    return rows


def settings(run: RunRecord) -> tuple[list[Row], list[Row]]:
    """The settings that differ from those of the mode: key, value, value of the mode, origin; the
    user's first. Then all others: key, value, origin.
    """
    chosen: dict[Row, int] = {}
    others: list[Row] = []
    for key, setting in run.settings.items():
        if key == "promise":
            continue
        value = setting.get("value")
        layer = setting.get("layer")
        how = setting.get("how")
        layers = [setting, *setting.get("replaced", ())]
        shipped = [each.get("value") for each in layers if each.get("layer") not in _CHOSEN][:1]
        origin = f"{setting.get('origin', '')}{f': {how}' if how else ''}"
        if shipped == [value]:
            others.append((key, plain(value), origin))
        else:
            of_mode = "–" if shipped in ([], [None]) else plain(shipped[0])
            rank = LAYERS.index(layer) if layer in LAYERS else 0
            chosen[key, plain(value), of_mode, origin] = rank
    return sorted(chosen, key=lambda row: -chosen[row]), others


def differing_settings(runs: Sequence[RunRecord]) -> list[Row]:
    """The settings that differ between several runs, a row for each run, below a head."""
    columns = {}
    for key in dict.fromkeys(key for run in runs for key in run.settings if key != "promise"):
        values = [
            plain(run.settings[key].get("value")) if key in run.settings else "–" for run in runs
        ]
        if len(set(values)) > 1:
            columns[key] = values
    names = [run.name for run in runs]
    return [("run", *columns), *zip(names, *columns.values(), strict=True)] if columns else []


def time_split(run: RunRecord) -> list[tuple[str, float, str]]:
    """Where the time of the run went: name, percent, text of each part; empty if it is not known."""
    split = run.result.get("time_split") or {}
    shares = [(name, s, 100 * s / sum(split.values())) for name, s in split.items() if s > 0]
    return [(name.removesuffix("_s"), x, f"{duration(s)}, {x:.1f}%") for name, s, x in shares]


def machine(run: RunRecord) -> list[Row]:
    """The machine, and its highest readings."""
    facts = run.result.get("environment") or {}
    result = run.result
    known = {key: facts[key] for key in ("host", "system", "cores") if facts.get(key) is not None}
    if facts.get("memory_bytes") is not None:
        known["memory"] = size(facts["memory_bytes"])
    known |= {key: facts[key] for key in ("gpus", "device") if facts.get(key) is not None}
    known |= {"processes": result["world_size"]} if "world_size" in result else {}
    readings = (result.get("machine") or {}).items()
    known |= {f"highest {str(key).replace('_', ' ')}": plain(value) for key, value in readings}
    return [(key, str(value)) for key, value in known.items()]


def texts(run: RunRecord, kind: str) -> list[tuple[str, str, bool]]:
    """Of the events of a `kind`, when training was, the text, and whether a metric is at chance."""
    facts = [event["facts"] for event in run.events if event["kind"] == kind]
    return [
        (str(f.get("when", "")), page.cut(f.get("text", "")), bool(f.get("at_chance")))
        for f in facts
    ]


def commands(run: RunRecord) -> list[tuple[str, str]]:
    """What each command does, and its line, for the working directory."""
    folder, settings = (
        shlex.quote(from_here(path.absolute()))
        for path in (run.folder, run.folder / run_folder.SETTINGS)
    )
    lines = [("repeat", f"{PROGRAM} --config {settings}")]
    if run.checkpoints:
        lines.append(("resume", f"{PROGRAM} resume {folder}"))
        lines.append(("verify", f"{PROGRAM} verify {folder}"))
    lines.append(("write this report again", f"{PROGRAM} report {folder}"))
    words = ["--model", _setting(run, "model"), "--modes", _setting(run, "mode")]
    return [*lines, ("measure the promises of the mode", f"{PROGRAM} compare {shlex.join(words)}")]


def _setting(run: RunRecord, name: str) -> str:
    """The name of model, mode or engine by its settings."""
    if name == "model":
        parts = [run.value("model.family"), run.value("model.size")]
        return ":".join(str(part) for part in parts if part)
    return str(run.value("engine.name" if name == "engine" else name) or "")


def evaluations(run: RunRecord) -> list[Row]:
    """The test split at the end of the run, then each result of `evaluate`. Reads the disk."""
    rows: list[Row] = []
    with suppress(*_INVALID):
        if test := run.result.get("test"):
            step = f"step {test['step']:,}"
            rows.append(("end of the run", step, "test", _OWN_DATA, _metrics(test)))
    for line in RunReader(run.folder).lines(run_folder.EVALUATIONS):
        with suppress(*_INVALID):
            when = str(line["time"]).removesuffix("Z").replace("T", " ")
            average = ", EMA" if line["weights"] == "ema" else ""
            processes = counted(line["world_size"], "process")
            checkpoint = f"step {line['step']:,}{average}, {line['engine']} on {processes}"
            data = f"{line['data'] or _OWN_DATA}, {counted(line['samples'], 'sample')}"
            rows.append((f"{when} UTC", checkpoint, str(line["split"]), data, _metrics(line)))
    return rows


def _metrics(facts: Mapping[str, Any]) -> str:
    values: Sequence[tuple[str, Any]] = list(facts["metrics"].items())
    return ", ".join(f"{name} {real(float(value))}" for name, value in values)
