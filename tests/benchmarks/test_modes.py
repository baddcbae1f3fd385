"""Measured promises become a table for the docs."""

from __future__ import annotations

import pytest

from benchmarks import modes
from benchmarks.figures import load_rows, save_rows
from benchmarks.modes import Row, commands, run, table
from launcher.cli.parser import read
from launcher.compare.candidates import decide
from models.catalog import FAMILIES

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


def test_each_command_is_listed_once():
    assert commands(ROWS) == "- `a`\n- `b`"


def test_rows_are_loaded_as_saved(tmp_path):
    save_rows(tmp_path / "modes.json", "python -m benchmarks.modes", {"cores": "2"}, ROWS)
    assert load_rows(tmp_path / "modes.json", Row)[2] == ROWS


def test_every_family_is_checked_against_its_promises():
    assert set(modes.COMPARISONS) == set(FAMILIES)


@pytest.mark.parametrize(
    "arguments", [each for found in modes.COMPARISONS.values() for each in found], ids=" ".join
)
def test_evaluations_are_on_where_a_promise_counts_them(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    candidates = decide(read(["compare", *arguments])).candidates
    runs = [run for c in candidates for run in (c.stages.values() if c.stages else [c.resolved])]
    promised = {measure for run in runs for measure in run.promises}
    if promised & {"epoch_time", "total_time", "time_to_metric", "metric"}:
        assert all(run.values["eval.last"].value is True for run in runs)


@pytest.mark.slow
def test_a_comparison_becomes_rows():
    args = ["--model", "doc_translation:tiny", "--modes", "conservative", "--steps", "4"]
    sets = ("--set", "data.fraction=0.1", "--set", "data.max_new_tokens=8")
    found = {row.promise: row for row in run([*args, *sets])}
    assert found["parameters"].kept is True
    assert found["total_time"].measured > 0
