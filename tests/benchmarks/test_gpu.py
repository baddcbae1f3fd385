"""The benchmark for GPUs keeps a row for every part, and its tables say what was not run."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.figures import load_rows
from benchmarks.gpu import run
from benchmarks.gpu_parts import LLAMA, NUMBERS, ROOT, Part, parts
from benchmarks.gpu_parts import test_files as gpu_files
from gearshift.engines.catalog import ENGINES
from tests.engines.pool import preload

ISOLATED = "tests.benchmarks.test_isolated"
CEILING = Part(
    "ceiling",
    "ceiling",
    {},
    status="measured",
    figures={"flops": 10.0, "gpu": "NVIDIA H200", "gpus": 1},
)


def options(path: Path, **more: object) -> argparse.Namespace:
    given = {"nproc": 1, "smoke": False, "resume": False, **more}
    return argparse.Namespace(json=path, command="a command", **given)


def step(side: str, engine: str, seconds: float, **more: object) -> Part:
    """A measured step of 10 FLOP."""
    case = {"family": "language", "size": "124M", "packed": False, "compile": True, "settings": {}}
    figures = {"flops": 10.0, "samples": 2, "seconds": seconds, "peak_bytes": 2**30}
    figures |= {"busy_s": 0.001, "launches": 1200}
    figures |= {"graphs": 2, "later_graphs": 1, "waits": {"a.py:1": 0.5, "b.py:2": 1.0}}
    arguments = {**case, "side": side, "engine": engine, **more}
    return Part(f"{side} {engine}", "step", arguments, status="measured", figures=figures)


def steps(nproc: int, is_smoke: bool) -> list[Mapping[str, Any]]:
    return [part.arguments for part in parts(nproc, is_smoke) if part.function == "step"]


@pytest.mark.parametrize("nproc", [1, 2])
def test_every_engine_is_measured_with_and_without_packing(nproc: int) -> None:
    ours = {
        (c["size"], c["engine"], c["packed"])
        for c in steps(nproc, is_smoke=False)
        if c["side"] == "ours" and c["family"] == "language"
    }
    engines = [name for name in ENGINES if nproc == 1 or name != "local"]
    assert ours == {(s, e, p) for s in ("124M", "1.3B") for e in engines for p in (True, False)}
    names = [p.name for p in parts(nproc, is_smoke=False)]
    assert len(names) == len(set(names)) and names[0] == "ceiling"


def test_all_files_with_a_test_marked_gpu_are_run() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search("pytest.mark." + "gpu|each_" + "device", path.read_text())
    }
    assert set(gpu_files()) == marked


def kind(part: Part) -> str:
    """The place of a part in the order of what decides most."""
    case = part.arguments
    if part.function != "step":
        decides = part.name in NUMBERS
        return "numbers" if decides else part.function
    if case["packed"] or (case["side"] == "raw" and case["family"] == "language"):
        return "rest"
    if case["family"] not in ("language", LLAMA):
        return "families"
    if "model.quantize" in case["settings"]:
        return "nf4"
    if case["settings"]:
        return "adapters" if case["family"] == LLAMA else "rest"
    if case["engine"].startswith("zero2-offload"):
        return "offload"
    decides = case["engine"] in ("local", "fsdp") and (case["compile"] or case["side"] == "ours")
    return case["size"] if decides else "rest"


ORDER = ["numbers", "124M", "1.3B", "offload", "adapters", "nf4", "families", "rest"]


@pytest.mark.parametrize(
    ("is_smoke", "expected"),
    [
        (False, ["ceiling", *ORDER, "tests"]),
        (True, ["ceiling", "tests", "tiny", "adapters", "nf4", "families", "rest"]),
    ],
)
def test_what_decides_most_comes_first(is_smoke: bool, expected: list[str]) -> None:
    order = [kind(part) for part in parts(1, is_smoke)]
    assert [name for name, _ in groupby(order)] == expected


def test_whole_programs_are_the_last_tests_and_files_of_numbers_exist() -> None:
    names = [part.name for part in parts(1, is_smoke=False)]
    assert set(NUMBERS) <= set(gpu_files())
    assert {name.rpartition("/")[0] for name in names[-2:]} == {"tests/runs"}


class Clock:
    """A clock that a part of a given length moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lengths: Mapping[str, float]) -> None:
        self.now, self.started = 0.0, list[str]()
        self._lengths = lengths
        monkeypatch.setattr(gpu.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(gpu, "measure", self.measure)

    def measure(self, part: Part, limit_s: float, is_smoke: bool) -> Part:
        self.started.append(part.name)
        self.now += self._lengths[part.name]
        return replace(part, status="measured", seconds=self._lengths[part.name])


def test_a_part_that_does_not_fit_is_left_for_continue(tmp_path, monkeypatch) -> None:
    clock = Clock(monkeypatch, {"a": 20.0, "b": 40.0, "c": 5.0, "d": 5.0})
    estimates = {"a": 20.0, "b": 50.0, "c": 9.0, "d": 30.0}
    wanted = [Part(name, "x", {}, estimate_s=estimates[name]) for name in estimates]
    path = tmp_path / "gpu.json"
    run(wanted, options(path), {}, until=60.0)
    assert clock.started == ["a", "c", "d"]
    run(wanted, options(path, resume=True), {}, until=clock.now + 50.0)
    assert clock.started == ["a", "c", "d", "b"]
    # From now on the seconds that they took decide, not the estimates.
    clock.started.clear()
    run(wanted, options(path), {}, until=clock.now + 66.0)
    assert clock.started == ["a", "b", "c"]


def test_without_time_every_part_is_a_row_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    rows = run(parts(1, is_smoke=False), options(path), {}, until=time.monotonic())
    assert {row.status for row in rows} == {"not run: out of time"}
    assert load_rows(path, Part)[2] == rows
    lines = [line for table in gpu.TABLES for line in table(rows)[2:]]
    assert len(lines) == len(rows)
    assert all("not run: out of time" in line for line in lines)
    assert all(table([]) == ["not measured"] for table in gpu.TABLES)


def test_a_part_that_fails_is_a_row_and_the_next_one_is_measured(tmp_path: Path) -> None:
    preload("cpu")  # for later tests, as in test_isolated.py
    good = Part("good", f"{ISOLATED}:report_facts", {"facts": {"text": "good"}})
    wanted = [Part("bad", f"{ISOLATED}:report_and_fail", {}), good]
    rows = run(wanted, options(tmp_path / "gpu.json"), {}, until=time.monotonic() + 600)
    assert [row.status for row in rows] == ["failed: ValueError: no", "measured"]
    assert rows[1].figures == {"text": "good"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", [("0.500", "2.00", "0.291 reached"), ("0.500", "1.00", "0.579 missed")]),
        ("NVIDIA L4", [("0.500", "2.00", "1.300 reached"), ("0.500", "1.00", "1.000 reached")]),
    ],
)
def test_an_h200_has_goals_and_on_other_gpus_the_ratio_to_anchors_decides(name, expected) -> None:
    anchors = [("zero2-offload own Adam", 4.0), ("zero2-offload", 5.0), ("local", 2.0)]
    rows = [replace(CEILING, figures={**CEILING.figures, "gpu": name})]
    rows += [step("plain", engine, seconds) for engine, seconds in anchors]
    rows += [step("ours", engine, 2.0) for engine in ("zero2-offload", "local", "oss")]
    first, *_ = found = [line.strip("| ").split(" | ") for line in gpu.speed(rows)[2:]]
    assert [tuple(row[6:9]) for row in found[3:]] == [*expected, ("0.500", "–", "–")]
    assert first[3:8] == ["1", "4000.0", "0.5", "0.250", "–"] and first[9:] == [
        "1.0",
        "2 + 1",
        "1,200",
        "1.5",
    ]


def test_a_row_whose_operations_are_unknown_has_no_share_of_the_ceiling() -> None:
    row = step("ours", "local", 2.0, family=LLAMA, size="0.5B")
    cells = gpu.speed([CEILING, replace(row, figures={**row.figures, "flops": None})])[-1].split(
        " | "
    )
    assert cells[4:9] == ["2000.0", "1.0", "–", "–", "–"]
