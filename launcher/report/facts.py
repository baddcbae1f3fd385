"""The facts of one run as texts: outcome, what to do, settings, time, machine, events, commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from gearshift.launcher.base.diagnostics import from_here, plain, program_line
from gearshift.launcher.config.provenance import FITTED_LAYERS, LAYERS, USER_LAYERS
from gearshift.launcher.report import page
from gearshift.launcher.report.page import known
from gearshift.launcher.report.run_record import OF_ANOTHER_VERSION, RunRecord
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.callbacks.base import Facts, Json
from gearshift.training.logging import console_text
from gearshift.training.logging.encoding import amount, counted, duration, real, size

Row = tuple[str, ...]
_ABOVE_MODE = (*FITTED_LAYERS, *USER_LAYERS)
"""Layers above the mode."""
_RANKS = {layer: rank for rank, layer in enumerate(LAYERS)}
_OWN_DATA = "of the run"
_STYLES = {"completed": "good", "failed": "bad"}
MOST_EVENTS = 400
"""Events of a row on the step axis, and of the list."""


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
        text += f" ({counted(float(f'{epochs:.3g}'), 'epoch')})"
    return "; ".join(filter(None, [text, run.result.get("reason")]))


def title(run: RunRecord) -> str:
    """Model, stage, mode and engine."""
    model, mode, engine = (
        run.result.get(name) or _setting(run, name) for name in ("model", "mode", "engine")
    )
    stage = run.result.get("stage")
    parts = [
        model,
        stage and f"stage {stage}",
        mode,
        engine,
    ]
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
    different = [*dict.fromkeys(run.validation for run in runs if run.validation)]
    if len(different) < 2:
        return [""] * len(runs)
    letters: dict[Any, str] = {None: ""}
    for number, validation in enumerate(different):
        letters[validation] = ascii_uppercase[number % len(ascii_uppercase)]
    return [letters[run.validation] for run in runs]


def validation_note(runs: Sequence[RunRecord]) -> str:
    """That best scores are of different validation data, in a line; empty: they are not."""
    names: dict[str, list[str]] = {}
    for run, mark in zip(runs, validation_marks(runs), strict=True):
        if mark:
            names.setdefault(mark, []).append(run.name)
    if not names:
        return ""
    parts = [f"{mark}: {', '.join(of_mark)}" for mark, of_mark in names.items()]
    return f"best scores are of different validation data, {'; '.join(parts)}"


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
        lines = dict(commands(run))
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
    """The settings that differ from those of the mode: key, value, value of the mode, origin; the
    user's first. Then all others: key, value, origin.
    """
    chosen = []
    others = []
    for key, setting in run.settings.items():
        if key == "promise":
            continue
        origin = setting.get("origin", "")
        if setting.get("how"):
            origin += f": {setting['how']}"
        value = setting.get("value")

        # The newest value of no layer above it is that of the mode, or of what it leaves alone.
        layers = [setting, *setting.get("replaced", ())]
        shipped = [each.get("value") for each in layers if each.get("layer") not in _ABOVE_MODE]
        if value in shipped[:1]:
            others.append((key, plain(value), origin))
            continue
        of_mode = known(next(iter(shipped), None), plain)
        rank = _RANKS.get(setting.get("layer", ""), 0)
        chosen.append((-rank, (key, plain(value), of_mode, origin)))

    # The layers of the user are the highest.
    chosen.sort(key=itemgetter(0))
    return [row for _, row in chosen], others


def differing_settings(runs: Sequence[RunRecord]) -> list[Row]:
    """The settings that differ between several runs, a row for each run, below a head."""
    columns = {}
    for key in dict.fromkeys(chain.from_iterable(run.settings for run in runs)):
        if key == "promise":
            continue
        # A setting that one of the runs does not have differs as well.
        values = [known(run.settings.get(key), _plain_value) for run in runs]
        if len(set(values)) > 1:
            columns[key] = values
    if not columns:
        return []
    return [("run", *columns), *zip([run.name for run in runs], *columns.values(), strict=True)]


def _plain_value(setting: Facts) -> str:
    return plain(setting.get("value"))


def time_split(run: RunRecord) -> list[tuple[str, float, str]]:
    """Where the time of the run went: name, percent, text of each part; empty: unknown."""
    split = run.result.get("time_split") or {}
    parts = []
    for name, seconds in split.items():
        if seconds > 0:
            percent = 100 * seconds / sum(split.values())
            text = f"{duration(seconds)}, {percent:.1f}%"
            parts.append((name.removesuffix("_s"), percent, text))
    return parts


def machine(run: RunRecord) -> Sequence[Row]:
    """The machine, and its highest readings."""
    facts = dict(run.result.get("environment") or {})
    if facts.get("memory_bytes") is not None:
        facts["memory"] = size(facts["memory_bytes"])
    facts["processes"] = run.result.get("world_size")

    rows = []
    for key in ("host", "system", "cores", "memory", "gpus", "device", "processes"):
        if facts.get(key) is not None:
            rows.append((key, str(facts[key])))
    for key, value in (run.result.get("machine") or {}).items():
        rows.append((f"highest {key.replace('_', ' ')}", plain(value)))
    return rows


def texts(run: RunRecord, kind: str) -> list[tuple[str, str, bool]]:
    """Of the events of a `kind`, when training was, the text, and whether a metric is at chance."""
    every = [event["facts"] for event in run.events if event["kind"] == kind]
    return [
        (
            str(facts.get("when", "")),
            page.cut(facts.get("text", "")),
            bool(facts.get("at_chance")),
        )
        for facts in every
    ]


def commands(run: RunRecord) -> list[tuple[str, str]]:
    """What each command does, and its line, for the working directory."""
    path = from_here(run.folder.absolute())
    model = _setting(run, "model")
    mode = _setting(run, "mode")
    # Without a checkpoint there is nothing to resume or to replay.
    names = ("resume", "verify", "report") if run.checkpoints else ("report",)
    return [
        (
            "repeat",
            program_line("--config", Path(path, run_folder.SETTINGS)),
        ),
        *[(name, program_line(name, path)) for name in names],
        (
            "compare with mode default",
            program_line("compare", "--model", model, "--modes", mode),
        ),
    ]


def _setting(run: RunRecord, name: str) -> str:
    """The name of model, mode or engine by its settings."""
    if name == "model":
        parts = [run.value("model.family"), run.value("model.size")]
        return ":".join(str(part) for part in parts if part)
    key = "engine.name" if name == "engine" else name
    return str(run.value(key) or "")


def evaluations(run: RunRecord) -> Sequence[Row]:
    """The test split at the end of the run, then each result of `evaluate`. Reads the disk."""
    rows = []
    test = run.result.get("test")
    if test:
        rows.append(
            (
                "end of the run",
                f"step {test['step']:,}",
                "test",
                _OWN_DATA,
                _metrics(test),
            )
        )
    # Only `evaluate` writes this file, and another version of it may have written a line.
    for line in RunReader(run.folder).lines(run_folder.EVALUATIONS):
        with suppress(*OF_ANOTHER_VERSION):
            when = str(line["time"]).removesuffix("Z").replace("T", " ")
            average = ", EMA" if line["weights"] == "ema" else ""
            processes = counted(line["world_size"], "process")
            samples = counted(line["samples"], "sample")
            rows.append(
                (
                    f"{when} UTC",
                    f"step {line['step']:,}{average}, {line['engine']} on {processes}",
                    str(line["split"]),
                    f"{line['data'] or _OWN_DATA}, {samples}",
                    _metrics(line),
                )
            )
    return rows


def baselines(run: RunRecord) -> Sequence[Row]:
    """The metrics of the best evaluation and of each simple method, after a row with their names.

    Empty: no method was measured.
    """
    methods = run.result.get("baselines")
    best = run.result.get("best")
    if not methods or not best:
        return ()
    metrics: Json = {best["metric"]: best["value"]}
    for name, points in run.evaluations.items():
        metrics.setdefault(name, dict(points).get(best["step"]))
    names = [name for name in metrics if any(name in each["metrics"] for each in methods)]
    rows: list[Row] = [("", *names)]
    for method in ({"name": "the model", "metrics": metrics}, *methods):
        cells = [known(method["metrics"].get(name), _real) for name in names]
        rows.append((method["name"], *cells))
    return rows


def _real(value: Any) -> str:
    """A number, or the text of one that is not finite."""
    return real(float(value))


def _metrics(facts: Facts) -> str:
    texts = []
    for name, value in facts["metrics"].items():
        texts.append(f"{name} {_real(value)}")
    return ", ".join(texts)


def listed_events(run: RunRecord) -> tuple[int, Sequence[Row]]:
    """How many events a report shows; step, time and text of those in its list."""
    events = shown_events(run)
    rows = []
    for event in page.thinned(events, MOST_EVENTS):
        rows.append((str(event["step"]), event["time"], event_text(event)))
    return len(events), rows


def shown_events(run: RunRecord) -> list[Facts]:
    """The events of the list and of the step axis; others are shown elsewhere, or not at all."""
    elsewhere = ("preview", "first_batch")
    return [event for event in run.events if event["kind"] not in elsewhere]


def event_text(event: Facts) -> str:
    """One event in a line, in the words of the console."""
    facts = event["facts"]
    kind = event["kind"]
    with suppress(*OF_ANOTHER_VERSION):
        if kind == "evaluated":
            text = f"evaluated: {_metrics(facts)}"
            if facts["is_best"]:
                text += ", the best so far"
            return f"{text} ({duration(facts['seconds'])})"
        if kind == "saved":
            return f"saved checkpoints/{facts['folder']}"
        if kind == "started":
            steps = f"steps {facts['first_step'] + 1:,} to {facts['total_steps']:,}"
            if facts.get("time_s") is not None:
                steps = f"step {facts['first_step'] + 1:,}, for {duration(facts['time_s'])}"
            return f"started: {steps}"
        if kind == "stopped":
            reason = facts["reason"]
            return f"{facts['status']}: {reason}" if reason else str(facts["status"])
        line = console_text.describe(kind, facts)
        if line is not None:
            label, text = line
            if label != console_text.WARNING:
                text = console_text.render_row(label, text)
            return " ".join(text.split())
    # A kind for the log only, or of another version.
    words = [kind.replace("_", " ")]
    words += [f"{name}={value}" for name, value in facts.items()]
    return " ".join(words)
