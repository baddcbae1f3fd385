"""Every benchmark shows its options; those of each kind run small and print their table."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_parts import parts
from tests.waiting import LIMIT_S

ROOT = Path(__file__).parents[2]


def table_of(module: str, options: str) -> list[str]:
    """The rows of the table that a benchmark prints, without their frame."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *shlex.split(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return rows[1:]


def first_cells(rows: list[str]) -> list[str]:
    return [row.split(" | ")[0].strip("`") for row in rows]


PROGRAMS = sorted(
    path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text()
)


@pytest.mark.parametrize("module", PROGRAMS)
def test_a_benchmark_shows_its_options(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{module}").main()
    assert ended.value.code == 0 and "options:" in capsys.readouterr().out


STEPS = "--steps 4 --warmup 2 --rounds 1"


@pytest.mark.slow
def test_plans_are_at_most_5_percent_away():
    assert table_of("plan_error", "--families language --engines zero2 --limit 1")


@pytest.mark.slow
def test_loop_overhead_measures_gearshift_and_its_peers():
    has_peers = all(map(importlib.util.find_spec, ("accelerate", "lightning")))
    only = "" if has_peers else "--only Gearshift"
    found = first_cells(table_of("loop_overhead", f"{STEPS} --micro-batch 2 {only}"))
    assert {"bare PyTorch", "Gearshift"} <= {*found} and len(found) == (6 if has_peers else 2)


@pytest.mark.slow
def test_gpu_runs_its_parts_small_on_a_cpu():
    chosen = (
        "tiny plain local",
        "tiny our model by hand",
        "llama:tiny Gearshift local, rank 8, quantize",
    )
    wanted = [part for part in parts(1, is_smoke=True) if part.name.startswith(chosen)]
    found = [gpu.measure(part, LIMIT_S, is_smoke=True) for part in wanted]
    assert [part.status for part in found] == ["measured"] * len(found) and len(found) > 1
    (figures,) = (part.figures for part in found if part.name.startswith("tiny plain local"))
    assert figures["graphs"] > 0 and figures["later_graphs"] == 0
    assert any("attention" in name for name in figures["attention"]) and figures["head"]


@pytest.mark.slow
def test_checkpoint_measures_ways_to_save_and_load():
    found = first_cells(table_of("checkpoint", "--smoke --only 'ours, background' torch.save"))
    assert found.count("ours, background") == 4 and "torch.save" in found


@pytest.mark.slow
def test_data_measures_readers_and_their_model():
    rows = table_of("data", "--rounds 1 --seconds 0.05 --scale 0.01 --only abr")
    assert rows and {row.split(" | ")[0] for row in rows} == {"abr"}
