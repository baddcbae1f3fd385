"""The rows of benchmarks.gpu as Markdown tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = ["not measured"]
ANCHORS = {
    "local": ("local",),
    "ddp": ("local", "ddp"),
    "fsdp": ("fsdp",),
    "zero2": ("zero2",),
    "zero2-offload": ("zero2-offload own Adam", "zero2-offload"),
}
"""The plain contenders that an engine of ours is held against: the fastest of them."""
GOALS = {
    ("124M", "local"): 0.579,
    ("1.3B", "local"): 0.722,
    ("124M", "fsdp"): 0.469,
    ("1.3B", "fsdp"): 0.682,
    ("124M", "zero2-offload"): 1.3 * 0.224,
    ("1.3B", "zero2-offload"): 1.3 * 0.227,
}
"""The least share of the ceiling on one H200, by size and engine: those of plain PyTorch,
fully_shard, and 1.3 times that of DeepSpeed, measured on an H200 before this benchmark existed."""


@dataclass(frozen=True)
class Row:
    """One part of a run."""

    name: str
    gpus: int
    status: str
    """`measured`, `failed: ` with the last line of the error, or `not run: ` with the reason."""
    seconds: float
    """The duration of the part."""
    arguments: Mapping[str, Any]
    figures: Mapping[str, Any]


def share(row: Row, ceiling: float | None) -> float | None:
    """FLOP/s of the model on one GPU, over those of a matrix product there."""
    if not ceiling or "seconds" not in row.figures:
        return None
    return float(row.figures["flops"] / row.figures["seconds"] / ceiling)


def speed(rows: Sequence[Row]) -> list[str]:
    """A row for each contender."""
    heads = (
        "model",
        "contender",
        "documents",
        "GPUs",
        "ms/step",
        "tokens/s per GPU",
        "share of ceiling",
        "of its anchor",
        "goal",
        "peak GiB",
        "graphs",
        "waits",
    )
    found = [_speed(row, rows) for row in _steps(rows)]
    return _table(heads, found, numbers=range(3, len(heads)))


def _speed(row: Row, rows: Sequence[Row]) -> list[str]:
    case, figures = row.arguments, row.figures
    begin = [case["size"], _contender(row), _documents(row), str(row.gpus)]
    if "seconds" not in figures:
        return [*begin, _cell(row.status), *["–"] * 7]
    ceiling, gpu = _ceiling(rows)
    reached = share(row, ceiling)
    tokens = case["micro_batch"] * case["seq_len"] / figures["seconds"]
    later = figures["later_graphs"]
    waits = figures["waits"]
    return [
        *begin,
        f"{1e3 * figures['seconds']:.1f}",
        f"{tokens:,.0f}",
        _number(reached, ".3f"),
        _number(_ratio(row, rows), ".2f"),
        _goal(row, reached, gpu),
        _number(figures["peak_bytes"], ".1f", 2**30),
        f"{figures['graphs']}" + (f" + {later}" if later else ""),
        "–" if waits is None else f"{sum(waits.values()):g}",
    ]


def _ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """The share of an engine of ours over that of its anchor."""
    if row.arguments["side"] != "ours":
        return None
    anchors = [
        other.figures["flops"] / other.figures["seconds"]
        for other in _steps(rows)
        if other.arguments["side"] == "plain"
        and other.arguments["size"] == row.arguments["size"]
        and other.arguments["engine"] in ANCHORS.get(row.arguments["engine"], ())
        and other.gpus == row.gpus
        and "seconds" in other.figures
    ]
    own = row.figures["flops"] / row.figures["seconds"]
    return own / max(anchors) if anchors else None


def _goal(row: Row, reached: float | None, gpu: str) -> str:
    goal = GOALS.get((row.arguments["size"], row.arguments["engine"]))
    is_ours = row.arguments["side"] == "ours" and row.gpus == 1 and not row.arguments["settings"]
    if goal is None or reached is None or not is_ours or "H200" not in gpu:
        return "–"
    return f"{goal:.3f} {'reached' if reached >= goal else 'missed'}"


def kernels(rows: Sequence[Row]) -> list[str]:
    """The names of kernels, and the places where the host waits for the GPU."""
    heads = (
        "model",
        "contender",
        "documents",
        "GPUs",
        "attention",
        "head",
        "kernels ms/step",
        "host waits at",
    )
    found = [
        [
            row.arguments["size"],
            _contender(row),
            _documents(row),
            str(row.gpus),
            _names(row.figures["attention"]),
            _names(row.figures["head"]),
            f"{1e3 * row.figures['busy_s']:.1f}",
            _names(f"{place} ({count:g})" for place, count in (row.figures["waits"] or {}).items()),
        ]
        for row in _steps(rows)
        if "attention" in row.figures
    ]
    return _table(heads, found, numbers=[3, 6])


def tests(rows: Sequence[Row]) -> list[str]:
    """The outcomes of the tests marked gpu, by file, with the names of those that failed."""
    found = []
    for row in rows:
        if "path" not in row.arguments:
            continue
        outcomes = row.figures.get("tests", {})
        counts = Counter(outcomes.values())
        text = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        if row.status != "measured":
            text = f"{text}; {row.status}" if text else row.status
        failed = [name for name, outcome in outcomes.items() if outcome in ("failed", "error")]
        found.append([f"`{row.name}`", _cell(text), _names(failed)])
    return _table(("file", "outcome", "failed"), found, numbers=[])


def _steps(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if "side" in row.arguments]


def _ceiling(rows: Sequence[Row]) -> tuple[float | None, str]:
    for row in rows:
        if row.name == "ceiling":
            return row.figures.get("flops"), str(row.figures.get("gpu", ""))
    return None, ""


def _contender(row: Row) -> str:
    case = row.arguments
    titles = {"plain": "plain", "raw": "our model by hand in", "ours": "Gearshift"}
    kind = [] if case["compile"] else ["eager"]
    return ", ".join(
        [f"{titles[case['side']]} {case['engine']}", *kind, *changes(case["settings"])]
    )


def changes(settings: Mapping[str, Any]) -> list[str]:
    """Each of `settings` with its value, without the sections of its name."""
    found = []
    for key, value in settings.items():
        nested = changes(value) if isinstance(value, Mapping) else None
        found += [f"{key.rpartition('.')[2]} {value}"] if nested is None else nested
    return found


def _documents(row: Row) -> str:
    if row.arguments["side"] == "plain":
        return "–"
    return "packed" if row.arguments["packed"] else "one per row"


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "–" if value is None else f"{value / unit:{form}}"


def _names(names: Iterable[str]) -> str:
    return "<br>".join(f"`{_cell(name, 70)}`" for name in names) or "–"


def _cell(text: str, longest: int = 160) -> str:
    """`text` in one cell of a table."""
    return text.replace("|", "/").replace("`", "'").replace("<", "(").replace(">", ")")[:longest]


def _table(heads: Sequence[str], rows: Sequence[list[str]], numbers: Iterable[int]) -> list[str]:
    if not rows:
        return NOT_MEASURED
    right = set(numbers)
    marks = ["---:" if i in right else "---" for i in range(len(heads))]
    return [
        f"| {' | '.join(heads)} |",
        f"|{'|'.join(marks)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
