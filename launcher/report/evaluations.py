"""The evaluations of a run's checkpoints after training, and its noise control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launcher.report.run_record import RunRecord
from launcher.run_folder import run_folder
from training.logging.quantities import counted, real

Row = tuple[str, ...]
HEAD = ("when", "checkpoint", "split", "data", "metrics")
_OWN = "of the run"
_INVALID = (KeyError, TypeError, ValueError, AttributeError)
"""Raised for a line of another version."""


def rows(run: RunRecord) -> list[Row]:
    """The test split at the end of the run, then each result of `evaluate`. Reads the disk."""
    return [*_at_end(run), *_evaluated(run)]


def controls(run: RunRecord) -> list[tuple[str, str]]:
    """Each metric of a noise control beside chance, and the style of the text."""
    return [
        (str(event.facts.get("text", "")), "good" if event.facts.get("at_chance") else "bad")
        for event in run.events
        if event.kind == "control"
    ]


def _at_end(run: RunRecord) -> Iterator[Row]:
    try:
        if test := run.result.get("test"):
            yield "end of the run", f"step {test['step']:,}", "test", _OWN, _metrics(test)
    except _INVALID:
        pass


def _evaluated(run: RunRecord) -> Iterator[Row]:
    for line in run_folder.json_lines(run.folder / run_folder.EVALUATIONS):
        try:
            when = str(line["time"]).removesuffix("Z").replace("T", " ")
            average = ", EMA" if line["weights"] == "ema" else ""
            processes = counted(line["world_size"], "process")
            engine = f"{line['engine']} on {processes}"
            checkpoint = f"step {line['step']:,}{average}, {engine}"
            data = f"{line['data'] or _OWN}, {counted(line['samples'], 'sample')}"
            yield f"{when} UTC", checkpoint, str(line["split"]), data, _metrics(line)
        except _INVALID:
            continue


def _metrics(facts: Mapping[str, Any]) -> str:
    values: Sequence[tuple[str, Any]] = list(facts["metrics"].items())
    return ", ".join(f"{name} {real(float(value))}" for name, value in values)
