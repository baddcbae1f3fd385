"""Timed steps become rounds, medians and ratios paired within a round; files keep their rows."""

from __future__ import annotations

import pytest
import torch

from benchmarks.clock import StepClock
from benchmarks.figures import Memory, load, load_memory, machine, memory_table, rows, save, table


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
    lines = table(rows([{"bare": 0.002, "ours": 0.001}], "bare"))
    assert lines[2] == "| bare | 2.000 | 2.000 - 2.000 | 1.000 | 1.000 - 1.000 |"


def test_a_file_keeps_the_command_the_machine_each_table_and_memory(tmp_path):
    path = tmp_path / "figures.json"
    taken = [Memory("bare", 2**30, None), Memory("ours", 2**29, 2**28)]
    tables = {name: rows([{"bare": time}], "bare") for name, time in (("save", 1.0), ("load", 2.0))}
    facts = machine(["no-such-package"])
    save(path, "a command", facts, tables, taken)
    assert facts["no-such-package"] == "absent"
    assert load(path, "load") == ("a command", facts, tables["load"]) and load_memory(path) == taken
    assert memory_table(taken)[2:] == ["| bare | 1.00 | – |", "| ours | 0.50 | 0.25 |"]
