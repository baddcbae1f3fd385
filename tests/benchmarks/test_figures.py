"""Timed steps become rounds, medians and ratios paired within a round; files keep their rows."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from benchmarks import families, tally
from benchmarks.clock import StepClock
from benchmarks.figures import Memory, load, load_memory, machine, memory_table, rows, save, table, write
from models.catalog import FAMILIES


def test_a_clock_ticks_once_per_step_also_if_an_optimizer_is_called_for_parts():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    parts = [[{**optimizer.param_groups[0], "params": [torch.zeros(1)]}] for _ in range(3)]
    announced: list[int] = []
    with StepClock(warmup=1, steps=3, device="cpu", after=announced.append) as clock:
        for part in parts * 2:
            optimizer.param_groups = part
            optimizer.step()
        with pytest.raises(RuntimeError, match="2 steps, not 3"):
            clock.seconds_per_step  # noqa: B018
        optimizer.param_groups = parts[0]
        optimizer.step()
    assert clock.seconds_per_step == (clock.end - clock.begin) / 2 > 0
    assert announced == [1, 2, 3]
    optimizer.step()
    assert clock.ticks == 3  # it has stopped


def test_a_ratio_is_paired_within_its_round():
    rounds = [{"bare": 1.0, "ours": 1.1}, {"bare": 10.0, "ours": 11.0}, {"bare": 2.0, "ours": 2.2}]
    bare, ours = rows(rounds, "bare")
    assert (bare.ratio, bare.median_ms, bare.rounds) == (1.0, 2000.0, 3)
    assert ours.ratio == ours.ratio_low == ours.ratio_high == pytest.approx(1.1)
    lines = table(rows([{"bare": 0.002, "ours": 0.001}], "bare")).splitlines()
    assert lines[2] == "| bare | 2.000 | 2.000 - 2.000 | 1.000 | 1.000 - 1.000 |"


def test_a_file_keeps_the_command_the_machine_each_table_and_memory(tmp_path):
    path = tmp_path / "figures.json"
    taken = [Memory("bare", 2**30, None), Memory("ours", 2**29, 2**28)]
    tables = {name: rows([{"bare": time}], "bare") for name, time in (("save", 1.0), ("load", 2.0))}
    facts = machine(["no-such-package"])
    save(path, "a command", facts, tables, taken)
    assert facts["no-such-package"] == "absent"
    assert load(path, "load") == ("a command", facts, tables["load"]) and load_memory(path) == taken
    assert memory_table(taken).splitlines()[2:] == ["| bare | 1.00 | – |", "| ours | 0.50 | 0.25 |"]


RECORDS = [
    {"name": "a", "counts": {"x": 1}, "values": [1e-7, 0.1]},
    {"name": "b", "counts": {}, "values": []},
]


def test_a_file_has_one_record_a_line(tmp_path):
    content = {"machine": {"cores": "2"}, "rows": RECORDS, "tables": {"one": RECORDS}, "kept": []}
    write(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == content
    records = [line for line in text.splitlines() if '"name"' in line]
    assert [json.loads(line.strip().rstrip(",")) for line in records] == RECORDS * 2


def test_every_family_has_a_default_run_and_a_noise_control():
    assert set(families.RUNS) == set(families.SAMPLES) == set(FAMILIES)
    kinds = [kind for _, kind, _ in families.runs(None)]
    assert kinds.count("real") == kinds.count("noise") >= len(FAMILIES)


def test_a_killed_run_with_several_differences_counts_once():
    differences = ["b: x", "b: y", "c: z"]
    killed = [
        tally.Tally("local", 2, Counter(all=3), Counter(saving=1, training=2)),
        tally.Tally("ddp", 3, Counter(rank=1, all=1), Counter({"before a step": 2}), differences),
    ]
    assert [row.identical for row in killed] == [2, 1]
    *_, last = tally.table(killed).splitlines()
    assert last == "| in all | 5 | 5 | 2 | 2 | 1 | 4 | 0 | 1 | 3 |"
