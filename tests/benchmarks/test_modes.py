"""Measured promises become a table for the docs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import modes
from benchmarks.figures import save_rows
from benchmarks.modes import Row, run, table, with_others
from launcher.cli.parser import read
from launcher.compare.candidates import decide
from launcher.config.provenance import Resolved
from models.catalog import FAMILIES
from scripts.stated import STATED

ROWS = [
    Row("abr:tiny", "fast", "total_time", {"at_most": 0.34}, 0.25, True, None, "a"),
    Row("abr:tiny", "fast", "parameters", {"at_least": 1, "at_most": 1}, 2, False, None, "a"),
    Row("abr:tiny", "fast", "device_peak", {"at_most": 0.6}, None, None, "no GPU", "b"),
]


def test_each_promise_has_its_measurement_and_an_unknown_one_is_not_kept():
    assert table(ROWS).splitlines()[2:] == [
        "| `abr:tiny` | `fast` | total_time | at most 0.34 | 0.25 | ✓ |",
        "| `abr:tiny` | `fast` | parameters | 1 | 2 | ✗ |",
        "| `abr:tiny` | `fast` | device_peak | at most 0.6 | – | not measured: no GPU |",
    ]


def test_other_comparisons_keep_their_figures_unless_they_are_no_longer_made(tmp_path):
    path, facts = tmp_path / "modes.json", {"cores": "2"}
    first, second = (modes._line(modes.COMPARISONS["abr"][number]) for number in (0, 1))
    stored = [replace(ROWS[0], command=line, measured=0.5) for line in (second, first, "removed")]
    save_rows(path, "python -m benchmarks.modes", facts, stored)
    again = replace(ROWS[0], command=second)
    assert with_others(path, [again], facts) == ([stored[1], again], facts)
    newer = with_others(path, [again], {**facts, "torch": "3"})[1]
    assert newer == {"cores": "2", "torch": "3"}
    save_rows(path, "python -m benchmarks.modes", {"cores": "2", "torch": "2 and 3"}, stored)
    assert with_others(path, [again], newer)[1]["torch"] == "2 and 3"
    with pytest.raises(RuntimeError, match="was measured on"):
        with_others(path, [again], {"cores": "1"})


TIMES = {"epoch_time", "total_time", "time_to_metric", "metric"}
PEAKS = {"peak_memory", "device_peak", "host_peak", "device_peak_bytes", "host_peak_bytes"}
"""Measures that an evaluation is part of."""


def compared(arguments: Sequence[str]) -> list[Resolved]:
    """The runs of a comparison."""
    candidates = decide(read(["compare", *arguments])).candidates
    return [run for one in candidates for run in (one.stages or {"": one.resolved}).values()]


def switched_off(*comparisons: Sequence[str]) -> set[str]:
    """What the runs of all these comparisons promise, and none of them can measure."""
    return set.intersection(*map(_hidden, comparisons))


def _hidden(arguments: Sequence[str]) -> set[str]:
    runs = compared(arguments)
    promised = {measure for run in runs for measure in run.promises}
    evaluates = all(run.values["eval.last"].value is True for run in runs)
    hidden = set() if evaluates else promised & (TIMES | PEAKS)
    return hidden | (promised & {"time_to_metric"} if "--until" not in arguments else set())


def test_a_benchmark_switches_nothing_off_that_a_promise_measures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    off = {family: switched_off(*given) for family, given in modes.COMPARISONS.items()}
    assert off == {family: set() for family in FAMILIES}


def test_a_promise_that_is_not_measured_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lite = ["--model", "event_seg", "--modes", "lite", "--set", "eval.last=false"]
    assert "epoch_time" in switched_off(lite)
    assert "peak_memory" in switched_off(lite)
    assert "time_to_metric" in switched_off(["--model", "abr", "--modes", "fast"])


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
    args = ["--model", "doc_translation:tiny", "--modes", "conservative", "--steps", "4"]
    sets = ("--set", "data.fraction=0.1", "--set", "data.max_new_tokens=8")
    rows = list(run([*args, *sets], tmp_path))
    found = {row.promise: row for row in rows}
    assert found["parameters"].kept is True
    assert found["total_time"].measured > 0
    monkeypatch.setattr(modes.subprocess, "run", None)
    assert list(run([*args, *sets], tmp_path)) == rows


def test_an_interrupted_comparison_is_made_again(tmp_path, monkeypatch):
    calls = []

    def compare(command, stdout):
        out = Path(command[-1])
        out.mkdir(exist_ok=True)
        warnings = [] if calls else ["interrupted: not all runs were made"]
        (out / "compare.json").write_text(json.dumps({"rows": [], "warnings": warnings}))
        calls.append(command)
        return subprocess.CompletedProcess(command, 130)

    monkeypatch.setattr(modes.subprocess, "run", compare)
    args = ["--model", "abr:tiny", "--modes", "fast"]
    with pytest.raises(RuntimeError, match="did not finish; exit code 130"):
        list(run(args, tmp_path))
    assert list(run(args, tmp_path)) == list(run(args, tmp_path)) == []
    assert len(calls) == 2
