"""Rounds of measurements as medians, spreads and ratios; as a Markdown table, as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Row:
    """One contender over all rounds; times in milliseconds."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    ratio: float
    """Median over rounds of this contender's time by the reference's of the same round."""
    ratio_low: float
    ratio_high: float
    rounds: int


@dataclass(frozen=True)
class Memory:
    """The peak host memory of a contender above that at its start, in bytes."""

    name: str
    save_bytes: int
    load_bytes: int | None
    """None: it does not load."""


def rows(rounds: Sequence[Mapping[str, float]], reference: str) -> list[Row]:
    """A row for each contender from its seconds in every round; low and high are quartiles."""
    found = []
    for name in rounds[0]:
        times = [1e3 * r[name] for r in rounds]
        ratios = [r[name] / r[reference] for r in rounds]
        middles = (
            statistics.median(times),
            *quartiles(times),
            statistics.median(ratios),
            *quartiles(ratios),
        )
        found.append(Row(name, *middles, len(rounds)))
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile; the value itself where there is one only."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> list[str]:
    """The lines of a Markdown table; the last `numbers` columns hold numbers."""
    aligned = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(aligned)}|", *lines]


def table(rows: Sequence[Row], unit: str = "ms/step") -> list[str]:
    """The rows as the lines of a Markdown table."""
    spans = (
        (r, f"{r.low_ms:.3f} - {r.high_ms:.3f}", f"{r.ratio_low:.3f} - {r.ratio_high:.3f}")
        for r in rows
    )
    cells = (
        [r.name, f"{r.median_ms:.3f}", time, f"{r.ratio:.3f}", ratio] for r, time, ratio in spans
    )
    return markdown(["contender", unit, "quartiles", "ratio", "quartiles"], cells, numbers=4)


def memory_table(taken: Sequence[Memory]) -> list[str]:
    """The memory of each contender as the lines of a Markdown table."""
    sizes = ((entry.name, entry.save_bytes, entry.load_bytes) for entry in taken)
    cells = (
        [name, *("–" if n is None else f"{n / 2**30:.2f}" for n in both)] for name, *both in sizes
    )
    return markdown(["contender", "GiB to save", "GiB to load"], cells, numbers=2)


def machine(packages: Sequence[str]) -> dict[str, str]:
    """Where it was measured: processor, cores, system and the versions of `packages`."""
    facts = {
        "processor": _processor(),
        "cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def listed(facts: Mapping[str, str]) -> str:
    """The facts of a machine in a sentence."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def command(module: str, arguments: Sequence[str]) -> str:
    """The command that made the figures, without the output path."""
    remaining = list(arguments)
    if "--json" in remaining:
        at = remaining.index("--json")
        del remaining[at : at + 2]
    return shlex.join(["python", "-m", f"benchmarks.{module}", *remaining])


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with one record a line: an item of a list, or a value that has no list in it."""
    path.write_text(_lines(content) + "\n", encoding="utf-8")


def _lines(value: Any, indent: str = "") -> str:
    deeper = indent + "  "
    if isinstance(value, Mapping) and any(isinstance(x, Mapping | list) for x in value.values()):
        rows = [f"{json.dumps(name)}: {_lines(x, deeper)}" for name, x in value.items()]
        opening, closing = "{}"
    elif isinstance(value, list) and any(isinstance(x, Mapping | list) for x in value):
        rows = [json.dumps(x) for x in value]
        opening, closing = "[]"
    else:
        return json.dumps(value)
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(rows) + f"\n{indent}{closing}"


def save(
    path: Path | None,
    command_line: str,
    facts: Mapping[str, str],
    tables: Mapping[str, Sequence[Row]],
    memory: Sequence[Memory] = (),
) -> None:
    """Write everything as JSON if a path was given; with the command."""
    if path is not None:
        content: dict[str, object] = {
            "command": command_line,
            "machine": dict(facts),
            "tables": {name: [asdict(r) for r in t] for name, t in tables.items()},
        }
        if memory:
            content["memory"] = [asdict(entry) for entry in memory]
        write(path, content)


def load(path: Path, name: str | None = None) -> tuple[str, dict[str, str], list[Row]]:
    """Command, machine and rows of a table in a file of `save`; without `name` the only one."""
    content = json.loads(path.read_text(encoding="utf-8"))
    tables = content["tables"]
    (found,) = tables.values() if name is None else (tables[name],)
    return content["command"], content["machine"], [Row(**row) for row in found]


def save_rows(path: Path, command_line: str, facts: Mapping[str, str], rows: Sequence[Any]) -> None:
    """Write rows of any dataclass as JSON; with the command."""
    content = {
        "command": command_line,
        "machine": dict(facts),
        "rows": [asdict(row) for row in rows],
    }
    write(path, content)


def joined(stored: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """The facts of two machines, or versions of packages, that measured rows of one file."""
    return {
        name: " and ".join(dict.fromkeys([*stored.get(name, fact).split(" and "), fact]))
        for name, fact in facts.items()
    }


def load_rows(path: Path, kind: type[Kind]) -> tuple[str, dict[str, str], list[Kind]]:
    """Command, machine and the rows, each a `kind`, of a file that `save_rows` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["command"], content["machine"], [kind(**row) for row in content["rows"]]


def load_memory(path: Path) -> list[Memory]:
    """The memory of each contender in a file that `save` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Memory(**entry) for entry in content["memory"]]
