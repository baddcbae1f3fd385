"""Every benchmark runs with small inputs and prints its table."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import start_memory
from benchmarks.ballast import MOMENTS
from benchmarks.figures import load_rows
from benchmarks.gpu_tables import Row
from benchmarks.step_memory import PLACEMENTS
from models.catalog import FAMILIES

ROOT = Path(__file__).parents[2]
SMALL = ["--steps", "4", "--warmup", "2", "--rounds", "1"]


def table_of(*args: str) -> list[str]:
    """The rows of the table that a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", *args], cwd=ROOT, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]


def test_monitor_measures_a_reading_at_each_interval():
    assert len(table_of("benchmarks.monitor", "--rounds", "2", "--readings", "3")) == 4


@pytest.mark.slow
def test_plan_time_compares_a_prediction_with_its_run():
    row, count = table_of("benchmarks.plan_time", "--smoke")
    assert row.startswith("| language:tiny | default | local | 8 |")
    assert count.startswith("| within 20% |")


@pytest.mark.slow
def test_auto_engine_compares_the_choice_with_every_engine_that_fits():
    row, *_ = table_of("benchmarks.auto_engine", "--cases", "1", "--rounds", "1")
    assert row.startswith("| `event_seg:tiny` | – | `ddp` | ddp ") and "zero3 " in row


@pytest.mark.slow
def test_time_split_cost_compares_steps_with_and_without_it():
    small = ["--rounds", "1", "--pairs", "2", "--micro-batch", "2"]
    rows = table_of("benchmarks.time_split_cost", *small)
    found = [row.split(" | ")[0] for row in rows]
    assert found == ["| a step", "| its marks", "| contender", "| without", "| with"]


@pytest.mark.slow
def test_agreement_measures_and_simulates_each_contender():
    small = ["--processes", "2", "--steps", "4", "--rounds", "1"]
    assert len(table_of("benchmarks.agreement", *small)) == 3 * 3


@pytest.mark.slow
def test_loop_overhead_measures_gearshift_and_a_bare_loop():
    rows = table_of("benchmarks.loop_overhead", *SMALL, "--micro-batch", "2", "--only", "Gearshift")
    assert [row.split(" | ")[0] for row in rows] == ["| bare PyTorch", "| Gearshift"]


@pytest.mark.slow
def test_loop_overhead_measures_all_peers():
    for package in ("accelerate", "lightning"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, of the extra `bench`")
    rows = table_of("benchmarks.loop_overhead", *SMALL, "--micro-batch", "2")
    assert len(rows) == 6


@pytest.mark.slow
def test_engines_overhead_compares_each_engine_with_the_raw_library():
    rows = table_of(
        "benchmarks.engines_overhead", *SMALL, "--micro-batch", "2", "--engines", "ddp", "zero2"
    )
    names = [row.split(" | ")[0] for row in rows]
    assert names == [f"| {side} {e}" for e in ("ddp", "zero2") for side in ("raw", "ours")]


@pytest.mark.slow
def test_startup_measures_gearshift_and_a_bare_script():
    rows = table_of("benchmarks.startup", "--rounds", "1")
    assert [row.split(" | ")[0] for row in rows] == ["| bare script", "| Gearshift"]


@pytest.mark.slow
def test_gpu_runs_its_parts_small_on_a_cpu(tmp_path):
    path = tmp_path / "gpu.json"
    rows = table_of("benchmarks.gpu", "--smoke", "--json", str(path))
    found = {row.name: row for row in load_rows(path, Row)[2]}
    assert {row.status for row in found.values()} == {"measured"}
    contenders = [row.split(" | ")[1] for row in rows if row.startswith("| tiny |")]
    assert contenders[:6] == contenders[6:]
    assert contenders[:2] == ["plain local", "plain fsdp"]
    assert contenders[-2:] == [
        "Gearshift local, eager",
        "Gearshift zero3, eager, overlap_comm False",
    ]
    assert found["tiny ours zero3, unpacked, eager, overlap_comm False"].gpus == 2
    figures = found["tiny plain local, unpacked, compiled"].figures
    assert figures["graphs"] > 0 and figures["later_graphs"] == 0
    assert any("attention" in name for name in figures["attention"]) and figures["head"]
    assert rows[-1] == "| `tests/training/test_throughput.py` | 1 skipped | – |"


@pytest.fixture
def a_control_group():
    """Skips the test if no control group can be made here."""
    try:
        with start_memory.control_group(None):
            pass
    except SystemExit as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_start_memory_measures_both_ways_to_start(a_control_group):
    args = ("benchmarks.start_memory", "--smoke", "--engines", "fsdp")
    rows = [row.strip("| ").split(" | ") for row in table_of(*args)]
    assert [row[:2] for row in rows] == [["`fsdp`", "whole"], ["`fsdp`", "deferred"]]
    assert [row[-1] == "–" for row in rows] == [True, False]  # a small model: yes or no is noise


@pytest.mark.slow
def test_step_memory_is_that_of_the_placement_of_each_engine():
    rows = table_of("benchmarks.step_memory", "--ranks", "2")  # fails if one is 5 % away
    assert [row.split("`")[1] for row in rows] == list(PLACEMENTS)


@pytest.mark.slow
def test_plan_error_compares_plans_with_training():
    args = ("--families", "language", "--engines", "ddp", "zero2", "--limit", "2")
    rows = table_of("benchmarks.plan_error", *args)[:2]  # fails if one is 5 % away
    assert {row.split("`")[3] for row in rows} == {"ddp", "zero2"}


@pytest.mark.slow
def test_plan_peers_estimates_what_is_measured():
    args = ("--models", "event_seg:tiny", "--engines", "local", "zero2")
    local, zero = table_of("benchmarks.plan_peers", *args)
    assert local.count("%") in (1, 2) and zero.count("%") == 2  # with accelerate, or without


@pytest.mark.slow
def test_plan_host_compares_with_and_without_a_heap_of_holes():
    rows = table_of("benchmarks.plan_host", "--models", "language:small")
    assert [row.split(" | ")[1:3] for row in rows] == [["local", "off"], ["local", "on"]]


@pytest.mark.slow
def test_busy_machine_measures_both_ways_of_waiting():
    rows = table_of("benchmarks.busy_machine", "--size", "tiny", "--steps", "2")
    assert [row.split(" | ")[0] for row in rows] == ["| GNU's default", "| ours"]


@pytest.mark.slow
def test_checkpoint_measures_every_way_to_save_and_load():
    rows = table_of("benchmarks.checkpoint", "--smoke")
    found = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert found.count("ours, background") == 5
    assert {"plain copy", "torch.save", "DCP async_save", "DeepSpeed stage 2"} < set(found)


@pytest.mark.slow
def test_data_measures_every_reader_and_its_model():
    rows = table_of("benchmarks.data", "--rounds", "1", "--seconds", "0.1", "--scale", "0.01")
    found = {tuple(row.strip("| ").split(" | ")[:2]) for row in rows}
    assert {family for family, _ in found} == set(FAMILIES)
    assert ("event_seg", "EVT 3.0") in found and ("eeg_text", "ZuCo 2.0") in found
    assert len(found) == len(rows) == 15


def test_voxels_measures_the_event_grid():
    rows = table_of("benchmarks.voxels", "--rounds", "1", "--events", "1000")
    assert rows[-1].startswith("| ours | ")


@pytest.mark.slow
def test_encoded_measures_steps_with_and_without_the_encoder():
    rows = table_of("benchmarks.encoded", "--model", "eeg_text:tiny", "--rounds", "1")
    names = [row.split(" | ")[0] for row in rows]
    assert names == ["| encoder in each step", "| features read", "| contender", *names[:2]]


@pytest.mark.slow
def test_out_of_memory_is_survived_at_any_moment():
    small = ["--engines", "fsdp", "--ranks", "1", "--cause", "refused"]
    (row,) = table_of("benchmarks.out_of_memory", *small)  # fails if one is not survived
    assert row.count("| yes, ") == len(MOMENTS)


@pytest.mark.slow
def test_out_of_memory_that_kills_a_rank_is_survived(a_control_group):
    small = ["--engines", "local", "ddp", "--ranks", "2", "--moments", "optimizer step"]
    rows = table_of("benchmarks.out_of_memory", *small)
    assert [row.split(" | ")[:2] for row in rows] == [["| `local`", "1"], ["| `ddp`", "2"]]
    assert all("yes, " in row for row in rows)


@pytest.mark.slow
def test_lora_measures_adapters_and_a_full_fine_tune():
    full, lora = table_of("benchmarks.lora", "--smoke")
    assert full.startswith("| all weights | ") and lora.startswith("| LoRA, rank 8 | ")


@pytest.mark.slow
def test_tokenizing_measures_the_library_and_ours():
    rows = table_of("benchmarks.tokenizing", "--mb", "9", "--rounds", "1")
    assert [row.split(" | ")[0] for row in rows] == [
        "| library, one document at a time",
        "| library, encode_batch_fast",
        "| Gearshift",
    ]
