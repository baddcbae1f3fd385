"""The tables of docs/results.md, from the files in benchmarks/results/."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import (
    crash,
    data,
    differences,
    families,
    fits,
    gpu,
    lora,
    modes,
    out_of_memory,
    plan_error,
    plan_host,
    time_budget,
)
from benchmarks.figures import listed, load, load_memory, load_rows, markdown, table
from benchmarks.gpu_parts import Part

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MEASURED_BY = "Measured by "
"""Begins the line below a table."""
LARGEST = 5
"""Rows of a table of errors: the largest ones."""
IN_SHORT = ((8, 16, 24), (32,))
"""GiB of GPUs and of main memory in the README."""


def times(name: str, unit: str) -> list[str]:
    """Times and ratios with quartiles."""
    return table(load(_path(name))[2], unit)


def saving() -> list[str]:
    """A row for each way to save: times to save and load, and memory for it."""
    path = _path("checkpoint")
    first, later, loading = (
        {row.name: f"{row.median_ms:,.0f}" for row in load(path, part)[2]}
        for part in ("first", "later", "load")
    )
    rows = []
    for entry in load_memory(path):
        name = entry.name
        to_load = "–" if entry.load_bytes is None else f"{entry.load_bytes / 2**30:.2f}"
        to_save = f"{entry.save_bytes / 2**30:.2f}"
        rows.append([name, first[name], later[name], loading.get(name, "–"), to_save, to_load])
    heads = ["contender", "first save, ms", "later save, ms", "load, ms"]
    return markdown([*heads, "GiB to save", "GiB to load"], rows, numbers=5)


def errors(module: Any) -> list[str]:
    """The rows with the largest errors, as the benchmark shows them."""
    rows = sorted(_rows(module), key=lambda row: abs(row.error), reverse=True)
    return list(module.table(rows[:LARGEST]))


def slowest_readers() -> list[str]:
    """The reader of each family that is slowest beside the training."""
    groups = groupby(_rows(data), lambda row: row.family)
    slowest = [min(group, key=lambda row: float(row.ratio)) for _, group in groups]
    return data.table(slowest)


def on_gpu(table_of: Callable[[list[Part]], list[str]]) -> list[str]:
    """A table of the benchmark on a GPU, if it was run."""
    if not _path("gpu").exists():
        return table_of([])
    rows = load_rows(_path("gpu"), Part)[2]
    return _measured(lambda: table_of(rows), ("gpu",))


def planted_causes() -> list[str]:
    """What `verify --against` names, if the benchmark was run."""
    if not _path("differences").exists():
        return ["not measured"]
    return _measured(partial(whole, differences), ("differences",))


def whole(module: Any) -> list[str]:
    """The table of a benchmark, as it prints it."""
    return list(module.table(_rows(module)))


def _rows(module: Any) -> list[Any]:
    return list(load_rows(_path(module.__name__.rpartition(".")[2]), module.Row)[2])


def _path(name: str) -> Path:
    return RESULTS / f"{name}.json"


def _measured(rows: Callable[[], list[str]], names: Sequence[str]) -> list[str]:
    """A table, and below it the command of each of its files, with its machine."""
    files = [json.loads(_path(name).read_text(encoding="utf-8")) for name in names]
    lines = [f"`{file['command']}`, on: {listed(file['machine'])}" for file in files]
    return [*rows(), "", f"{MEASURED_BY}{'; '.join(lines)}."]


_FILES: dict[str, tuple[Callable[[], list[str]], Sequence[str]]] = {
    "loop": (partial(times, "loop", "ms/step"), ("loop",)),
    "engine steps": (partial(times, "engines", "ms/step"), ("engines",)),
    "longer engine steps": (partial(times, "engines_small", "ms/step"), ("engines_small",)),
    "unequal ranks": (partial(times, "unequal", "ms/step"), ("unequal",)),
    "startup": (partial(times, "startup", "ms to the first step"), ("startup",)),
    "saving": (saving, ("checkpoint",)),
    "out of memory": (partial(whole, out_of_memory), ("out_of_memory",)),
    "promises kept": (partial(whole, modes), ("modes",)),
    "baselines": (lambda: families.baseline_table(_rows(families)), ("families",)),
    "outcomes": (partial(whole, families), ("families",)),
    "killed": (lambda: crash.table(crash.load(_path("crash"))[2]), ("crash",)),
    "time budget": (partial(whole, time_budget), ("time_budget",)),
    "plan host": (partial(errors, plan_host), ("plan_host",)),
    "plan error": (partial(errors, plan_error), ("plan_error",)),
    "largest models": (lambda: fits.table(_rows(fits), rams=IN_SHORT[1]), ("fits",)),
    "ways to fine tune": (lambda: fits.ways(_rows(fits)), ("fits",)),
    "readers": (slowest_readers, ("data",)),
    "lora": (partial(whole, lora), ("lora",)),
}
"""Each table, and the files that it shows, by the name in the page."""
TABLES: dict[str, Callable[[], list[str]]] = {
    **{name: partial(_measured, rows, files) for name, (rows, files) in _FILES.items()},
    "planted causes": planted_causes,
    "commands to fine tune": lambda: fits.ways_commands(_rows(fits)),
    "largest models in short": lambda: fits.table(_rows(fits), *IN_SHORT),
    **{f"gpu {table_of.__name__}": partial(on_gpu, table_of) for table_of in gpu.TABLES},
}
"""By the name in the page."""
