"""Measured promises become a table for the docs."""

from __future__ import annotations

import pytest

from benchmarks import modes
from benchmarks.figures import load_rows, save_rows
from benchmarks.modes import Row, commands, run, table
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


@pytest.mark.slow
def test_a_comparison_becomes_rows():
    args = ["--model", "language:tiny", "--modes", "fast", "--steps", "4"]
    rows = list(run([*args, "--set", "eval.last=false"]))
    kept = {row.promise: row.kept for row in rows}
    assert kept["parameters"] is True
    assert kept["device_peak"] is None
