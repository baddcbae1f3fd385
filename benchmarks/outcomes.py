"""The result of a run of a family, compared with chance; as a Markdown table, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One command and the results in its run folder."""

    family: str
    kind: str
    """real, noise or sample: embedded data, the same without information, a recording."""
    command: str
    parameters: int
    data: str
    """Description of the data."""
    metrics: Mapping[str, float]
    """Of the last evaluation, the goal first."""
    control: Sequence[str]
    """Of a noise control: each metric with its band, as text."""
    exit_code: int
    seconds: float


def read(family: str, kind: str, command: str, run: Path, exit_code: int, seconds: float) -> Row:
    """The row of a run that has ended. Reads its folder."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = _lines(run / "metrics.jsonl")
    last = [line for line in lines if line["kind"] == "eval"][-1]["metrics"]
    goal = result["best"]["metric"]
    reports = [e["facts"]["text"] for e in _lines(run / "events.jsonl") if e["kind"] == "control"]
    return Row(
        family,
        kind,
        command,
        result["parameters"],
        _data(result["data"]),
        {goal: last[goal], **last},
        reports,
        exit_code,
        seconds,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _data(facts: Mapping[str, Any]) -> str:
    """Source, format, and number of samples of each split."""
    kind = facts.get("format") or facts.get("kind")
    parts = [Path(str(facts["source"])).name] + ([str(kind)] if kind else [])
    samples = " / ".join(f"{count:,}" for count in facts["samples"].values())
    return f"{', '.join(dict.fromkeys(parts))}; {samples} samples"


def table(rows: Sequence[Row], shown: Mapping[str, Sequence[str]]) -> str:
    """The rows as a Markdown table; `shown` names the metrics of each family."""
    heads = ("family", "command", "parameters", "data read (train / val / test)", "result")
    lines = [f"| {' | '.join(heads)} | noise control |", "|---|---|---:|---|---|---|"]
    for row in rows:
        names = [name for name in shown.get(row.family, ()) if name in row.metrics]
        names = names or [next(iter(row.metrics))]
        found = ", ".join(f"{name} {row.metrics[name]:.3g}" for name in names)
        control = "; ".join(row.control) if row.kind == "noise" else "–"
        lines.append(
            f"| {row.family} | `{row.command}` | {row.parameters:,} | {row.data} | {found} | {control} |"
        )
    return "\n".join(lines)
