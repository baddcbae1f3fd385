"""The benchmark for GPUs keeps a row for every part, and its tables say what was not run."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_checks, gpu_tables, isolated
from benchmarks.figures import load_rows
from benchmarks.gpu import Part, parts, run
from benchmarks.gpu_tables import Row
from benchmarks.isolated import Report
from engines.catalog import ENGINES
from models.catalog import FAMILIES
from tests.waiting import LIMIT_S

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
    case = {"family": "language", "size": "124M", "seq_len": 4, "micro_batch": 2}
    case |= {"packed": False, "compile": True}
    figures = {"flops": 10.0, "samples": 2, "seconds": seconds, "peak_bytes": 2**30}
    figures |= {"busy_s": 0.001, "launches": 1200}
    figures |= {"graphs": 2, "later_graphs": 1, "waits": {"a.py:1": 0.5, "b.py:2": 1.0}}
    figures |= {"attention": ["flash<1>"], "head": []}
    arguments = {**case, "settings": {}, "side": side, "engine": engine, **more}
    return Row(f"{side} {engine}", 1, "measured", 1.0, arguments, figures)


def with_anchors(rows: list[Row]) -> list[Row]:
    """The rows as one call measures them."""
    found: list[Row] = []
    for row in rows:
        found.append(gpu_tables.with_anchor(row, found))
    return found


CEILING = Row("ceiling", 1, "measured", 1.0, {}, {"flops": 10.0, "gpu": "NVIDIA H200", "gpus": 1})


@pytest.mark.parametrize("nproc", [1, 2])
def test_every_engine_is_measured_with_and_without_packing(nproc: int) -> None:
    found = [p.arguments for p in parts(nproc, is_smoke=False) if "side" in p.arguments]
    ours = {
        (c["size"], c["engine"], c["packed"])
        for c in found
        if c["side"] == "ours" and c["family"] == "language"
    }
    engines = [name for name in ENGINES if nproc == 1 or name != "local"]
    assert ours == {(s, e, p) for s in gpu.SIZES for e in engines for p in (True, False)}
    names = [p.name for p in parts(nproc, is_smoke=False)]
    assert len(names) == len(set(names))
    assert names[:3] == ["ceiling", "engines agree", "command line"]


def kinds(wanted: list[Part]) -> set[object]:
    """What distinguishes rows, apart from size and engine."""
    return {
        (c["side"], c["family"], c["packed"], *(key for key in c["settings"]))
        for c in (part.arguments for part in wanted)
        if "side" in c
    }


def test_a_smoke_test_has_every_kind_of_row_that_a_cpu_can_have() -> None:
    whole = kinds(parts(2, is_smoke=False))
    assert kinds(parts(2, is_smoke=True)) == whole - {("ours", "language", False, "precision")}
    rows = {(p.arguments.get("side"), p.arguments.get("family")) for p in parts(1, is_smoke=True)}
    assert {(side, family) for family in FAMILIES for side in ("raw", "ours")} <= rows


def test_hybrid_sharding_has_two_nodes_where_ranks_can_be_halved() -> None:
    found = {n: [(p.ranks, p.nodes) for p in parts(n, is_smoke=False) if "hybrid" in p.name] for n in (1, 4)}
    assert found == {1: [(1, 1)] * 2, 4: [(4, 2)] * 2}


def test_all_files_with_a_test_marked_gpu_are_run() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search("pytest.mark." + "gpu|each_" + "device", path.read_text())
    }
    assert set(gpu.test_files()) == marked


def test_without_time_every_part_is_a_row_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    rows = run(parts(1, is_smoke=False), options(path), {}, until=time.monotonic())
    assert {row.status for row in rows} == {"not run: out of time"}
    assert load_rows(path, Row)[2] == rows
    lines = [line for t in (gpu_tables.checks, gpu_tables.speed, gpu_tables.tests) for line in t(rows)[2:]]
    assert len(lines) == len(rows)
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


def test_an_anchor_is_measured_again_for_what_an_earlier_call_left(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    cases = [step("plain", "local", 1.0), step("ours", "local", 1.0)]
    anchor, ours = (
        Part(row.name, f"{ISOLATED}:report_figures", {**row.arguments, "figures": row.figures})
        for row in cases
    )
    gpu.save_rows(path, "an earlier one", {}, [cases[0]])
    rows = run([anchor, ours], options(path, resume=True), {}, until=time.monotonic() + 600)
    assert rows[0].seconds != cases[0].seconds and rows[1].figures["anchor"] == 10.0
    again = run([anchor, ours], options(path, resume=True), {}, until=time.monotonic() + 600)
    assert again == rows


def test_the_rest_is_measured_by_a_command_that_is_shown(capsys, tmp_path: Path) -> None:
    rows = run(parts(4, is_smoke=False), options(tmp_path / "a.json", nproc=4), {}, time.monotonic())
    given = options(tmp_path / "a.json", nproc=4)
    assert gpu.report_end(rows, given) == 0
    said = f"python -m benchmarks.gpu --nproc 4 --continue --json {given.json}\n"
    assert capsys.readouterr().out == f"not run yet: {len(rows)} of {len(rows)}:  {said}"
    bad = Row("bad", 1, "failed: no", 1.0, {}, {})
    assert gpu.report_end([bad], given) == 1 and capsys.readouterr() == ("", "failed: bad\n")


def test_a_share_is_compared_with_the_fastest_anchor_and_the_goal() -> None:
    rows = with_anchors(
        [
            CEILING,
            step("plain", "zero2-offload own Adam", 4.0),
            step("plain", "zero2-offload", 5.0),
            step("ours", "zero2-offload", 2.0),
            step("ours", "local", 2.0),
            step("ours", "zero3", 2.0, size="1.3B"),
        ]
    )
    cells = [line.strip("| ").split(" | ") for line in gpu_tables.speed(rows)[2:]]
    assert [row[6:9] for row in cells[2:]] == [
        ["0.500", "2.00", "0.291 reached"],
        ["0.500", "–", "0.579 missed"],
        ["0.500", "–", "–"],
    ]
    assert cells[0][3:8] == ["1", "4000.0", "0.5", "0.250", "–"]
    assert cells[0][9:] == ["1.0", "2 + 1", "1.5"]
    kernels = "`flash(1)` | – | 1,200 | 1.0 | `a.py:1 (0.5)`<br>`b.py:2 (1)`"
    assert kernels in gpu_tables.kernels(rows)[2]


@pytest.mark.parametrize(
    ("gpu_name", "text"),
    [
        ("NVIDIA L4", "1e-11 TFLOP/s of a bf16 matrix product, 0.00 of its data sheet"),
        ("NVIDIA X1", "1e-11 TFLOP/s of a bf16 matrix product, in no data sheet of training/peak_flops.json"),
    ],
)
def test_on_other_gpus_than_h200_the_ratio_to_anchors_of_the_call_decides(gpu_name, text) -> None:
    figures = {**CEILING.figures, "gpu": gpu_name}
    family = {"family": "abr", "size": "full"}
    rows = with_anchors(
        [
            replace(CEILING, figures=figures),
            step("plain", "local", 2.0),
            step("plain", "zero2-offload", 2.0),
            step("raw", "local", 2.0, **family),
            step("ours", "local", 2.0),
            step("ours", "zero2-offload", 2.0),
            step("ours", "local", 2.5, **family),
            step("ours", "local", 2.0, settings={"precision": "fp8"}),
            step("ours", "oss", 2.0),
        ]
    )
    cells = [line.strip("| ").split(" | ") for line in gpu_tables.speed(rows)[2:]]
    assert [row[7:9] for row in cells[3:]] == [
        ["1.00", "1.000 reached"],
        ["1.00", "1.300 missed"],
        ["0.80", "1.000 missed"],
        ["1.00", "–"],
        ["–", "–"],
    ]
    goals = "goals are ratios to the anchors of the same call"
    assert gpu_tables.checks(rows)[2] == f"| ceiling | {gpu_name}: {text}; {goals} |"


def test_checks_name_the_largest_errors_and_the_known_memory() -> None:
    errors = {"local in fp32": {"loss": 1e-6, "gradient": 2e-6}, "oss in bf16": {}}
    errors |= {"ddp in fp32": {"loss": 3e-6, "gradient": 1e-6}}
    memory = {"engine": "ddp", "memory_bytes": 2**30, "planned_bytes": 2**21, "peak_bytes": None}
    rows = [
        Row("engines agree", 1, "failed: oss in bf16: no", 1.0, {}, {"errors": errors, "wrong": []}),
        Row("command line", 1, "measured", 1.0, {}, memory),
        Row("lost rank", 1, "measured", 1.0, {}, {"end_s": 2.04}),
    ]
    assert gpu_tables.checks(rows)[2:] == [
        "| engines agree | fp32, 2 engines: largest error of loss 3.0e-06 (ddp), "
        "gradient 2.0e-06 (local); bf16, 0 engines; failed: oss in bf16: no |",
        "| command line | memory of the GPU: 1,024.0 MiB; engine auto: ddp; "
        "peak: 2.0 MiB planned, unknown measured |",
        "| lost rank | out of memory on one of two ranks: both have ended after 2.0 s |",
    ]


def test_tests_are_counted_and_those_that_failed_are_named() -> None:
    tests = {"test_a": "passed", "test_b": "passed", "test_c[x]": "failed"}
    late = "failed: took longer than 2 s"
    row = Row("tests/a.py", 1, late, 2.0, {"path": "tests/a.py"}, {"tests": tests})
    (line,) = gpu_tables.tests([row])[2:]
    assert line == f"| `tests/a.py` | 1 failed, 2 passed; {late} | `test_c[x]` |"
    assert all(table([]) == ["not measured"] for table in gpu_tables.TABLES)


def agree_with_little_error(report: Report) -> None:
    """The check of one engine, with less error allowed than bf16 has."""
    gpu_checks.LIMITS = {"bf16": 1e-9}
    gpu_checks.ENGINES = {"fsdp": ENGINES["fsdp"]}
    gpu_checks.agreement(report, is_smoke=True)


def test_an_engine_with_wrong_gradients_is_named() -> None:
    result = isolated.run(f"{__name__}:agree_with_little_error", {}, 1, LIMIT_S, {})
    assert "RuntimeError: fsdp in bf16: loss is " in result.error and "gradient is" in result.error
    errors = result.figures["errors"]["fsdp in bf16"]
    assert 0 < errors["loss"] < 0.01 and 0 < errors["gradient"] < 0.05


def test_a_gpu_whose_memory_no_plan_knows_is_an_error() -> None:
    plan = {"fits": True, "device_memory_bytes": 79 * 2**30}
    check, total = gpu_checks.check_memory, 80 * 2**30
    check(plan, total, 1)
    check({"fits": True, "device_memory_bytes": None}, None, None)  # a CPU
    for wrong, peak in (
        ({"fits": None}, 1),
        ({"device_memory_bytes": None}, 1),
        ({"device_memory_bytes": 24 * 2**30}, 1),  # that of the host
        ({}, None),
    ):
        with pytest.raises(RuntimeError, match="plan: "):
            check({**plan, **wrong}, total, peak)
