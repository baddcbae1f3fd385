"""The table of our plan beside other estimators."""

from __future__ import annotations

import pytest
from torch import nn

from benchmarks import plan_peers
from benchmarks.plan_peers import Row, table


def test_the_table_has_the_error_of_each_estimator():
    rows = [
        Row("a:b", "zero2", 2, 10**6, 10_000_000, 10_100_000, 5_000_000, None, 3),
        Row("a:b", "local", 1, 10**6, 10_000_000, 9_900_000, None, 20_000_000, 3),
    ]
    lines = table(rows).splitlines()[2:]
    assert [[cell.strip() for cell in line.split("|")[5:9]] for line in lines] == [
        ["10.0", "10.1 (+1.0%)", "5.0 (-50.0%)", "–"],
        ["10.0", "9.9 (-1.0%)", "–", "20.0 (+100.0%)"],
    ]


@pytest.mark.slow
def test_the_estimate_of_deepspeed_counts_the_part_of_a_rank():
    model = nn.Linear(10, 10)  # 110 parameters in one layer
    assert plan_peers._deepspeed(model, "zero2", 2) == 2 * 110 + 18 * 110 // 2
    assert plan_peers._deepspeed(model, "zero3", 2) == 4 * 110 + 18 * 110 // 2
    # 16 bytes and half as much again in host memory, by two ranks.
    assert plan_peers._deepspeed(model, "zero2-offload", 2) == 2 * 110 + 24 * 110 // 2
    assert plan_peers._deepspeed(model, "local", 1) is None
