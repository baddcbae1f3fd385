"""The facts of one run as texts: outcome, what to do, settings, time, machine, events, commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, cycle
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from gearshift.launcher.base.diagnostics import from_here, plain, program_line
from gearshift.launcher.config.provenance import FITTED_LAYERS, USER_LAYERS
from gearshift.launcher.report import page
from gearshift.launcher.report.page import known
from gearshift.launcher.report.run_record import OF_ANOTHER_VERSION, RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.callbacks.base import Facts
from gearshift.training.logging import console_text
from gearshift.training.logging.encoding import amount, counted, duration, real, size

Row = tuple[str, ...]
_ABOVE_MODE = (*FITTED_LAYERS, *USER_LAYERS)
"""Layers above the mode."""
_OWN_DATA = "of the run"
_STYLES = {"completed": "good", "failed": "bad"}
DIFFERENT_VALIDATION = "best scores are of different validation data, as their letters say"
MOST_EVENTS = 400
"""Events of the list."""


def status(run: RunRecord) -> tuple[str, str]:
    """How the run ended, and the style of that word."""
    word = run.result.get("status")
    if word is None:
        word = "not finished" if run.events or run.steps else "not started"
    return word, _STYLES.get(word, "warn")


def outcome(run: RunRecord) -> str:
    """The end of the run in a line, after its status."""
    text = counted(run.steps, "step")
    epochs = run.result.get("epochs")
    if epochs is not None:
        text += f" ({counted(epochs, 'epoch')})"
    return "; ".join(filter(None, [text, run.result.get("reason")]))


def title(run: RunRecord) -> str:
    """Model, stage, mode and engine."""
    stage = run.result.get("stage")
    choice = run.choice
    parts = [choice["model"], stage and f"stage {stage}", choice["mode"], choice["engine"]]
    return ", ".join(filter(None, parts))


def figures(run: RunRecord) -> dict[str, str]:
    """The numbers that are looked for first; a dash for what is unknown."""
    result = run.result
    peaks = result.get("peak_memory_bytes") or {}
    memory = []
    for side in ("device", "host"):
        if peaks.get(side):
            memory.append(f"{side} {size(peaks[side])}")
    return {
        "steps": f"{run.steps:,}",
        "time": known(result.get("wall_s"), duration),
        "best": known(result.get("best"), console_text.render_best),
        "samples/s": known(result.get("samples_per_s"), amount),
        "parameters": known(result.get("parameters"), amount),
        "peak memory": ", ".join(memory) or page.UNKNOWN,
    }


def validation_marks(runs: Sequence[RunRecord]) -> list[str]:
    """The validation data of each run as a letter, where those of the best scores differ.

    Empty texts: they are the same, or unknown.
    """
    different = dict.fromkeys(run.validation for run in runs if run.validation)
    if len(different) < 2:
        return [""] * len(runs)
    letters: dict[Any, str] = dict(zip(different, cycle(ascii_uppercase), strict=False))
    return [letters.get(run.validation, "") for run in runs]


def findings(runs: Sequence[RunRecord]) -> list[Row]:
    """What was seen, the likely cause, and the next command; of several runs after their names.

    Of faults, and of the end of a run that is not complete.
    """
    rows: list[Row] = []
    for run in runs:
        name = [run.name] if len(runs) > 1 else []
        # A fault that was seen at several steps is listed once.
        for row in dict.fromkeys(_findings_of(run)):
            rows.append((*name, *row))
    return rows


def _findings_of(run: RunRecord) -> list[Row]:
    rows: list[Row] = []
    for event in run.events:
        facts = event["facts"]
        if event["kind"] in ("advice", "warning") and "fault" in facts:
            rows.append(tuple(str(facts.get(name, "")) for name in ("seen", "cause", "fix")))

    status = run.result.get("status")
    # A failed run that gave advice needs no other line.
    if status == "stopped":
        lines = commands(run)
        next_command = lines.get("resume", lines["repeat"])
    elif status == "failed" and not rows:
        log = from_here(run.folder.absolute() / run_folder.LOG)
        next_command = f"less {shlex.quote(log)}"
    else:
        return rows
    seen = f"{status} at step {run.steps:,}"
    reason = run.result.get("reason") or ""
    return [*rows, (seen, reason, next_command)]


def settings(run: RunRecord) -> tuple[Sequence[Row], Sequence[Row]]:
    """The settings that the machine or the user chose: key, value, value of the mode, origin.

    Then all others: key, value, origin.
    """
    chosen: list[Row] = []
    others: list[Row] = []
    for key, setting in run.settings.items():
        origin = setting.get("origin", "")
        if setting.get("how"):
            origin += f": {setting['how']}"
        value = _plain_value(setting)
        if setting.get("layer") not in _ABOVE_MODE:
            others.append((key, value, origin))
            continue
        # The newest value of no layer above it is that of the mode, or of what it leaves alone.
        replaced = setting.get("replaced", ())
        shipped = [each for each in replaced if each.get("layer") not in _ABOVE_MODE]
        of_mode = known(next(iter(shipped), None), _plain_value)
        chosen.append((key, value, of_mode, origin))
    return chosen, others


def differing_settings(runs: Sequence[RunRecord]) -> list[Row]:
    """The settings that differ between several runs, a row for each run, below a head."""
    columns = {}
    for key in dict.fromkeys(chain.from_iterable(run.settings for run in runs)):
        # A setting that one of the runs does not have differs as well.
        values = [known(run.settings.get(key), _plain_value) for run in runs]
        if len(set(values)) > 1:
            columns[key] = values
    if not columns:
        return []
    return [("run", *columns), *zip([run.name for run in runs], *columns.values(), strict=True)]


def _plain_value(setting: Facts) -> str:
    return plain(setting.get("value"))


def time_split(run: RunRecord) -> dict[str, float]:
    """The seconds of each part of the run; empty: unknown."""
    split = run.result.get("time_split") or {}
    return {name.removesuffix("_s"): seconds for name, seconds in split.items() if seconds > 0}


def machine(run: RunRecord) -> Sequence[Row]:
    """The machine, and its highest readings."""
    facts = {**run.environment, "processes": run.result.get("world_size")}
    facts.pop("libraries", None)
    memory = facts.pop("memory_bytes", None)
    facts["memory"] = known(memory, size)
    for key, value in (run.result.get("machine") or {}).items():
        facts[f"highest {key}"] = value
    return page.fact_rows(facts) if run.result else ()


def commands(run: RunRecord) -> dict[str, str]:
    """The line of each command, for the working directory. Reads the disk."""
    path = from_here(run.folder.absolute())
    lines = {"repeat": program_line("--config", Path(path, run_folder.SETTINGS))}
    # Without a checkpoint there is nothing to resume or to replay.
    names = ("resume", "verify", "report") if run_folder.checkpoints(run.folder) else ("report",)
    for name in names:
        lines[name] = program_line(name, path)
    return lines


def evaluations(run: RunRecord) -> Sequence[Row]:
    """The test split at the end of the run, then each result of `evaluate`. Reads the disk."""
    rows = []
    test = run.result.get("test")
    if test:
        step = f"step {test['step']:,}"
        rows.append(("end of the run", step, "test", _OWN_DATA, _metrics(test)))
    # Only `evaluate` writes this file, and another version of it may have written a line.
    for line in RunReader(run.folder).lines(run_folder.EVALUATIONS):
        with suppress(*OF_ANOTHER_VERSION):
            average = ", EMA" if line["weights"] == "ema" else ""
            processes = counted(line["world_size"], "process")
            samples = counted(line["samples"], "sample")
            rows.append(
                (
                    str(line["time"]),
                    f"step {line['step']:,}{average}, {line['engine']} on {processes}",
                    str(line["split"]),
                    f"{line['data'] or _OWN_DATA}, {samples}",
                    _metrics(line),
                )
            )
    return rows


def baselines(run: RunRecord) -> Sequence[Row]:
    """Name and metrics of each simple method, the best first; empty: none was measured."""
    return [(method["name"], _metrics(method)) for method in run.result.get("baselines") or ()]


def _metrics(facts: Facts) -> str:
    # A value that is not finite is a text.
    texts = [f"{name} {real(float(value))}" for name, value in facts["metrics"].items()]
    return ", ".join(texts)


def listed_events(run: RunRecord) -> Sequence[Row]:
    """Step, time and text of the events, at most MOST_EVENTS of them."""
    events = []
    for event in run.events:
        if event["kind"] != "preview":
            events.append(event)
    return [
        (str(event["step"]), event["time"], event_text(event))
        for event in page.thinned(events, MOST_EVENTS)
    ]


def event_text(event: Facts) -> str:
    """One event in a line, in the words of the console."""
    facts = event["facts"]
    kind = event["kind"]
    with suppress(*OF_ANOTHER_VERSION):
        if kind == "evaluated":
            best = ", the best so far" if facts["is_best"] else ""
            return f"evaluated {facts['split']}: {_metrics(facts)}{best}"
        if kind == "saved":
            return f"saved checkpoints/{facts['folder']}"
        if kind == "started":
            return f"started after step {facts['first_step']:,}"
        if kind == "stopped":
            return ": ".join(filter(None, [facts["status"], facts["reason"]]))
        line = console_text.describe(kind, facts)
        if line is not None:
            label, text = line
            if label != console_text.WARNING:
                text = f"{label}: {text}"
            return " ".join(text.split())
    # A kind for the log only, or of another version.
    return f"{kind.replace('_', ' ')} {console_text.render_facts(facts)}"
