"""Rounds become medians, quartiles and ratios paired within a round."""

from __future__ import annotations

import json

import pytest

from benchmarks.figures import (
    Memory,
    command,
    load,
    load_memory,
    machine,
    memory_table,
    quartiles,
    rows,
    save,
    table,
)


def test_a_ratio_is_paired_within_its_round():
    rounds = [{"bare": 1.0, "ours": 1.1}, {"bare": 10.0, "ours": 11.0}, {"bare": 2.0, "ours": 2.2}]
    bare, ours = rows(rounds, "bare")
    assert (bare.ratio, bare.median_ms, bare.rounds) == (1.0, 2000.0, 3)
    assert ours.ratio == ours.ratio_low == ours.ratio_high == pytest.approx(1.1)


def test_one_round_has_no_spread():
    assert quartiles([3.0]) == (3.0, 3.0)


def test_the_table_has_a_row_for_each_contender():
    lines = table(rows([{"bare": 0.002, "ours": 0.001}], "bare")).splitlines()
    assert lines[2] == "| bare | 2.000 | 2.000 - 2.000 | 1.000 | 1.000 - 1.000 |"
    assert lines[3].startswith("| ours | 1.000 |")


def test_json_keeps_the_command_the_machine_and_the_figures(tmp_path):
    path = tmp_path / "figures.json"
    save(path, "a command", machine(["no-such-package"]), {"loop": rows([{"bare": 1.0}], "bare")})
    assert load(path)[2] == rows([{"bare": 1.0}], "bare")
    content = json.loads(path.read_text())
    assert content["command"] == "a command"
    assert content["machine"]["no-such-package"] == "absent"
    assert content["tables"]["loop"][0]["median_ms"] == 1000.0


def test_a_table_is_read_by_name_and_memory_separately(tmp_path):
    path = tmp_path / "figures.json"
    taken = [Memory("bare", 2**30, None), Memory("ours", 2**29, 2**28)]
    tables = {name: rows([{"bare": time}], "bare") for name, time in (("save", 1.0), ("load", 2.0))}
    save(path, "a command", {}, tables, taken)

    assert load(path, "load")[2][0].median_ms == 2000.0
    assert load_memory(path) == taken
    assert memory_table(taken).splitlines()[2:] == ["| bare | 1.00 | – |", "| ours | 0.50 | 0.25 |"]


def test_the_command_can_be_rerun():
    args = ["--rounds", "9", "--json", "/somewhere/x.json", "--size", "tiny"]
    assert command("loop_overhead", args) == (
        "python -m benchmarks.loop_overhead --rounds 9 --size tiny"
    )
