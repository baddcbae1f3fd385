"""The benchmark for GPUs keeps a row for every part, and its tables say what was not run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_tables
from benchmarks.figures import load_rows
from benchmarks.gpu import Part, parts, run
from benchmarks.gpu_tables import Row
from engines.catalog import ENGINES

ROOT = Path(__file__).parents[2]
ISOLATED = "tests.benchmarks.test_isolated"


def reporting(text: str) -> Part:
    """A part that reports its name."""
    return Part(text, f"{ISOLATED}:report_facts", {"facts": {"text": text}})


def options(path: Path, **more: object) -> argparse.Namespace:
    given = {"nproc": 1, "smoke": False, "only": None, "resume": False, **more}
    return argparse.Namespace(json=path, command="a command", **given)


def step(side: str, engine: str, seconds: float, **more: object) -> Row:
    """A measured step of 10 FLOP."""
    case = {"size": "124M", "seq_len": 4, "micro_batch": 2, "packed": False, "compile": True}
    figures = {"flops": 10.0, "seconds": seconds, "peak_bytes": 2**30, "busy_s": 0.001}
    figures |= {"graphs": 2, "later_graphs": 1, "waits": {"a.py:1": 0.5, "b.py:2": 1.0}}
    figures |= {"attention": ["flash<1>"], "head": []}
    arguments = {**case, "settings": {}, "side": side, "engine": engine, **more}
    return Row(f"{side} {engine}", 1, "measured", 1.0, arguments, figures)


CEILING = Row("ceiling", 1, "measured", 1.0, {}, {"flops": 10.0, "gpu": "NVIDIA H200", "gpus": 1})


@pytest.mark.parametrize("nproc", [1, 2])
def test_every_engine_is_measured_with_and_without_packing(nproc: int) -> None:
    found = [p.arguments for p in parts(nproc, is_smoke=False) if "side" in p.arguments]
    ours = {(c["size"], c["engine"], c["packed"]) for c in found if c["side"] == "ours"}
    engines = [name for name in ENGINES if nproc == 1 or name != "local"]
    assert ours == {(s, e, p) for s in gpu.SIZES for e in engines for p in (True, False)}
    names = [p.name for p in parts(nproc, is_smoke=False)]
    assert len(names) == len(set(names)) and names[0] == "ceiling"


def test_all_files_with_a_test_marked_gpu_are_run() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if "pytest.mark." + "gpu" in path.read_text()
    }
    assert set(gpu.test_files()) == marked


def test_without_time_every_part_is_a_row_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    rows = run(parts(1, is_smoke=False), options(path), {}, until=time.monotonic())
    assert {row.status for row in rows} == {"not run: out of time"}
    assert load_rows(path, Row)[2] == rows
    lines = gpu_tables.speed(rows)[2:] + gpu_tables.tests(rows)[2:]
    assert len(lines) == len(rows) - 1
    assert all("not run: out of time" in line for line in lines)


def test_a_part_that_fails_is_a_row_and_the_next_one_is_measured(tmp_path: Path) -> None:
    wanted = [Part("bad", f"{ISOLATED}:report_and_fail", {}), reporting("good")]
    rows = run(wanted, options(tmp_path / "gpu.json"), {}, until=time.monotonic() + 600)
    assert [row.status for row in rows] == ["failed: ValueError: no", "measured"]
    assert rows[1].figures == {"text": "good"}


def test_rows_of_an_earlier_run_are_kept_on_the_same_machine_only(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    gpu.save_rows(path, "an earlier one", {"torch": "2"}, [CEILING])
    wanted, given = parts(1, is_smoke=False), options(path, resume=True)
    again = run(wanted, given, {"torch": "2"}, until=time.monotonic())
    assert given.command == "an earlier one && a command"
    assert again[0] == CEILING and again[1].status == "not run: out of time"
    with pytest.raises(SystemExit, match="another machine"):
        run(wanted, given, {"torch": "3"}, until=time.monotonic())


def test_a_share_is_compared_with_the_fastest_anchor_and_the_goal() -> None:
    rows = [
        CEILING,
        step("plain", "zero2-offload own Adam", 4.0),
        step("plain", "zero2-offload", 5.0),
        step("ours", "zero2-offload", 2.0),
        step("ours", "local", 2.0),
        step("ours", "zero3", 2.0, size="1.3B"),
    ]
    cells = [line.strip("| ").split(" | ") for line in gpu_tables.speed(rows)[2:]]
    assert [row[6:9] for row in cells[2:]] == [
        ["0.500", "2.00", "0.291 reached"],
        ["0.500", "–", "0.579 missed"],
        ["0.500", "–", "–"],
    ]
    assert cells[0][3:8] == ["1", "4000.0", "2", "0.250", "–"]
    assert cells[0][9:] == ["1.0", "2 + 1", "1.5"]
    assert "`flash(1)` | – | 1.0 | `a.py:1 (0.5)`<br>`b.py:2 (1)`" in gpu_tables.kernels(rows)[2]


def test_tests_are_counted_and_those_that_failed_are_named() -> None:
    tests = {"test_a": "passed", "test_b": "passed", "test_c[x]": "failed"}
    late = "failed: took longer than 2 s"
    row = Row("tests/a.py", 1, late, 2.0, {"path": "tests/a.py"}, {"tests": tests})
    (line,) = gpu_tables.tests([row])[2:]
    assert line == f"| `tests/a.py` | 1 failed, 2 passed; {late} | `test_c[x]` |"
    assert gpu_tables.speed([]) == gpu_tables.tests([]) == ["not measured"]
