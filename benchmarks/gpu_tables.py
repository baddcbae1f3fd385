"""The rows of benchmarks.gpu as Markdown tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training.throughput import peak_flops

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
RATIOS = {"zero2-offload": 1.3}
"""The least ratio to the anchor on any other GPU, by engine; else 1."""


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
        "samples/s per GPU",
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
    figures = row.figures
    if "seconds" not in figures:
        return [*_who(row), _cell(row.status), *["–"] * 7]
    ceiling, gpu = _ceiling(rows)
    reached = share(row, ceiling)
    later = figures["later_graphs"]
    waits = figures["waits"]
    return [
        *_who(row),
        f"{1e3 * figures['seconds']:.1f}",
        f"{figures['samples'] / figures['seconds']:,.1f}",
        _number(reached, ".3f"),
        _number(_ratio(row), ".2f"),
        _goal(row, reached, gpu),
        _number(figures["peak_bytes"], ".1f", 2**30),
        f"{figures['graphs']}" + (f" + {later}" if later else ""),
        "–" if waits is None else f"{sum(waits.values()):g}",
    ]


def is_anchor(row: Row, of: Row) -> bool:
    """Whether `row` is one that `of`, an engine of ours, is held against.

    For another family than language that is its model in a loop by hand.
    """
    case, ours = row.arguments, of.arguments
    if case.get("side") in (None, "ours") or ours.get("side") != "ours" or row.gpus != of.gpus:
        return False
    is_language = ours["family"] == "language"
    return (
        (case["family"], case["size"]) == (ours["family"], ours["size"])
        and case["side"] == ("plain" if is_language else "raw")
        and case["engine"] in ANCHORS.get(ours["engine"], ())
    )


def with_anchor(row: Row, measured: Iterable[Row]) -> Row:
    """`row` with the rate of the fastest of its anchors that the same call has `measured`."""
    if "seconds" not in row.figures:
        return row
    anchors = [_rate(other) for other in measured if is_anchor(other, row) and "seconds" in other.figures]
    return replace(row, figures={**row.figures, "anchor": max(anchors, default=None)})


def _rate(row: Row) -> float:
    """FLOP/s of the model; samples per second where its operations are unknown."""
    figures = row.figures
    return float((figures["flops"] or figures["samples"]) / figures["seconds"])


def _ratio(row: Row) -> float | None:
    anchor = row.figures.get("anchor")
    return _rate(row) / anchor if anchor else None


def _goal(row: Row, reached: float | None, gpu: str) -> str:
    case = row.arguments
    if case["side"] != "ours" or case["settings"]:
        return "–"
    if _has_shares(gpu):
        goal = GOALS.get((case["size"], case["engine"])) if row.gpus == 1 else None
        value = reached
    else:
        goal, value = RATIOS.get(case["engine"], 1.0), _ratio(row)
    if goal is None or value is None:
        return "–"
    return f"{goal:.3f} {'reached' if value >= goal else 'missed'}"


def _has_shares(gpu: str) -> bool:
    """Whether the goals of this GPU are shares of its ceiling."""
    return "H200" in gpu


def checks(rows: Sequence[Row]) -> list[str]:
    """The GPU and what decides there, the agreement of the engines, and the command line."""
    by_name = {row.name: row for row in rows}
    found = []
    for name, describe in (
        ("ceiling", _describe_gpu),
        ("engines agree", _describe_errors),
        ("command line", _describe_memory),
        ("lost rank", _describe_end),
    ):
        row = by_name.get(name)
        if row is not None:
            text = describe(row.figures) if row.figures else ""
            status = [] if row.status == "measured" else [row.status]
            found.append([name, _cell("; ".join(filter(None, [text, *status])), 600)])
    return _table(("check", "result"), found, numbers=[])


def _describe_gpu(figures: Mapping[str, Any]) -> str:
    gpu, flops = figures["gpu"], figures["flops"]
    text = f"{gpu}: {flops / 1e12:,.3g} TFLOP/s of a bf16 matrix product"
    peak = peak_flops(gpu, "bf16")
    if peak is None:
        text += ", in no data sheet of training/peak_flops.json"
    else:
        text += f", {flops / peak:.2f} of its data sheet"
    if _has_shares(gpu):
        return f"{text}; goals are shares of it"
    return f"{text}; goals are ratios to the anchors of the same call"


def _describe_errors(figures: Mapping[str, Any]) -> str:
    """The largest errors in each precision, and the engines that have them."""
    texts = []
    for precision in dict.fromkeys(title.rpartition(" ")[2] for title in figures["errors"]):
        errors = {
            title.partition(" ")[0]: found
            for title, found in figures["errors"].items()
            if title.endswith(precision) and found
        }
        most = [
            f"{kind} {max(errors[e][kind] for e in errors):.1e} "
            f"({max(errors, key=lambda e: errors[e][kind])})"
            for kind in ("loss", "gradient")
            if errors
        ]
        largest = f": largest error of {', '.join(most)}" if most else ""
        texts.append(f"{precision}, {len(errors)} engines{largest}")
    return "; ".join(texts)


def _describe_memory(figures: Mapping[str, Any]) -> str:
    return (
        f"memory of the GPU: {_size(figures['memory_bytes'])}; engine auto: {figures['engine']}; "
        f"peak: {_size(figures['planned_bytes'])} planned, {_size(figures['peak_bytes'])} measured"
    )


def _describe_end(figures: Mapping[str, Any]) -> str:
    return f"out of memory on one of two ranks: both have ended after {figures['end_s']:.1f} s"


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.1f} MiB"


def kernels(rows: Sequence[Row]) -> list[str]:
    """The names of kernels, and the places where the host waits for the GPU."""
    heads = (
        "model",
        "contender",
        "documents",
        "GPUs",
        "attention",
        "head",
        "launches/step",
        "kernels ms/step",
        "host waits at",
    )
    found = [
        [
            *_who(row),
            _names(row.figures["attention"]),
            _names(row.figures["head"]),
            f"{row.figures['launches']:,}",
            f"{1e3 * row.figures['busy_s']:.1f}",
            _names(f"{place} ({count:g})" for place, count in (row.figures["waits"] or {}).items()),
        ]
        for row in _steps(rows)
        if "attention" in row.figures
    ]
    return _table(heads, found, numbers=[3, 6, 7])


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


def model(family: str, size: str) -> str:
    """The size of a language model; of another family with its name."""
    return size if family == "language" else f"{family}:{size}"


def _who(row: Row) -> list[str]:
    case = row.arguments
    return [model(case["family"], case["size"]), _contender(row), _documents(row), str(row.gpus)]


def _contender(row: Row) -> str:
    case = row.arguments
    titles = {"plain": "plain", "raw": "our model by hand in", "ours": "Gearshift"}
    kind = [] if case["compile"] else ["eager"]
    return ", ".join([f"{titles[case['side']]} {case['engine']}", *kind, *changes(case["settings"])])


def changes(settings: Mapping[str, Any]) -> list[str]:
    """Each of `settings` with its value, without the sections of its name."""
    found = []
    for key, value in settings.items():
        nested = changes(value) if isinstance(value, Mapping) else None
        name = key.removesuffix(".name").rpartition(".")[2]
        found += [f"{name} {value}"] if nested is None else nested
    return found


def _documents(row: Row) -> str:
    if row.arguments["side"] == "plain" or row.arguments["family"] != "language":
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
    return [f"| {' | '.join(heads)} |", f"|{'|'.join(marks)}|", *(f"| {' | '.join(row)} |" for row in rows)]


TABLES = (checks, speed, kernels, tests)
