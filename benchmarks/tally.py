"""Counts of killed runs: moments, killed processes and differences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import write

MOMENTS = ("before a step", "training", "saving")
WHOM = ("all", "supervisor", "rank")


@dataclass
class Tally:
    """The victims of one engine."""

    engine: str
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    """By what was killed, one of WHOM."""
    moments: Counter[str] = field(default_factory=Counter)
    """By the activity at the kill, one of MOMENTS."""
    differences: list[str] = field(default_factory=list)
    """Differences of a run from the one never killed; each begins with the run."""

    @property
    def killed(self) -> int:
        """Kills in total."""
        return self.kills.total()

    @property
    def identical(self) -> int:
        """Runs without differences."""
        return self.runs - len({text.partition(":")[0] for text in self.differences})


def table(tallies: Sequence[Tally]) -> str:
    """A row for each engine and one for the total, as a Markdown table."""
    heads = ["engine", "runs", "kills", *MOMENTS, *(f"killed: {name}" for name in WHOM), "identical"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    rows = [_cells(tally) for tally in tallies]
    rows.append(["in all", *(sum(column) for column in zip(*(r[1:] for r in rows), strict=True))])
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(tally: Tally) -> list[Any]:
    counts = [tally.moments[name] for name in MOMENTS] + [tally.kills[name] for name in WHOM]
    return [tally.engine, tally.runs, tally.killed, *counts, tally.identical]


def save(path: Path, command_line: str, machine: Mapping[str, str], tallies: Sequence[Tally]) -> None:
    """Write the counts as JSON; with the command."""
    content = {"command": command_line, "machine": machine, "rows": [vars(tally) for tally in tallies]}
    write(path, content)


def load(path: Path) -> tuple[str, dict[str, str], list[Tally]]:
    """Command, machine and rows of a file that `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        row | {"kills": Counter(row["kills"]), "moments": Counter(row["moments"])} for row in content["rows"]
    ]
    return content["command"], content["machine"], [Tally(**row) for row in rows]
