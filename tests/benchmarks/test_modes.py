"""Measured promises become a table for the docs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks import modes
from benchmarks.modes import Row, run, table
from gearshift.launcher.__main__ import read
from gearshift.launcher.compare.candidates import decide
from scripts.stated import STATED

ROWS = [
    Row("abr:tiny", "fast", "total_time", {"at_most": 0.34}, 0.25, True, None, "a"),
    Row("abr:tiny", "fast", "parameters", {"at_least": 1, "at_most": 1}, 2, False, None, "a"),
    Row("abr:tiny", "fast", "device_peak", {"at_most": 0.6}, None, None, "no GPU", "b"),
]


def test_each_promise_has_its_measurement_and_an_unknown_one_is_not_kept():
    kept, unknown = "total_time 0.25 (≤ 0.34) | parameters 2 (= 1)", "device_peak: no GPU"
    assert table(ROWS)[2:] == [
        f"| `abr:tiny` | `fast` | {kept} | – | – |",
        f"| `abr:tiny` | `fast` | – | – | – | {unknown} |",
    ]


TIMES = {"epoch_time", "total_time", "time_to_metric", "metric"}
PEAKS = {"peak_memory", "device_peak", "host_peak", "device_peak_bytes", "host_peak_bytes"}
"""Measures that an evaluation is part of."""


def hidden(arguments: Sequence[str]) -> set[str]:
    """What the runs of a comparison promise, and it cannot measure."""
    candidates = decide(read(["compare", *arguments])).candidates
    runs = [run for one in candidates for run in (one.stages or {"": one.resolved}).values()]
    promised = {measure for run in runs for measure in run.promises}
    evaluates = all(run.values["eval.last"].value is True for run in runs)
    unmeasured = (set() if evaluates else TIMES | PEAKS) | {"time_to_metric"}
    return promised & (
        unmeasured if "--until" not in arguments else unmeasured - {"time_to_metric"}
    )


def test_a_benchmark_switches_nothing_off_that_a_promise_measures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for family, comparisons in modes.COMPARISONS.items():
        assert set.intersection(*map(hidden, comparisons)) == set(), family


def test_a_benchmark_runs_every_mode_of_which_an_original_states_a_promise():
    compared_modes = {
        (family, mode)
        for family, comparisons in modes.COMPARISONS.items()
        for arguments in comparisons
        for mode in arguments[arguments.index("--modes") + 1].split(",")
    }
    stated = {(one.model.partition(":")[0], one.mode) for one in STATED if one.promises}
    assert stated - compared_modes == set()


@pytest.mark.slow
def test_a_comparison_becomes_rows_and_is_not_made_again(tmp_path, monkeypatch):
    args = ["--model", "language:tiny", "--modes", "conservative", "--steps", "4"]
    args += ["--set", "data.fraction=0.1", "--set", "train.global_batch=4"]
    rows = list(run(args, tmp_path))
    found = {row.promise: row for row in rows}
    assert found["parameters"].kept is True
    assert found["total_time"].measured > 0
    monkeypatch.setattr(modes.subprocess, "run", None)
    assert list(run(args, tmp_path)) == rows
