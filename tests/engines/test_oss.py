"""Each rank holds the slots of its own parameters only."""

from __future__ import annotations

from tests.engines.parity import Case, train
from tests.engines.pool import Pool


def test_slots_are_shared_out_evenly_and_weights_are_everywhere(worlds: dict[int, Pool]) -> None:
    outcomes = worlds[2].run(train, Case("oss", steps=1))
    held = [
        {name: len(data) for kind, name, _, data, _ in outcome.pieces if kind == "exp_avg"}
        for outcome in outcomes
    ]
    assert not held[0].keys() & held[1].keys()
    elements = [sum(of_rank.values()) for of_rank in held]
    assert max(elements) < 1.1 * min(elements)
    for outcome in outcomes:
        weights = {name for kind, name, *_ in outcome.pieces if kind == "weight"}
        assert weights == outcome.shapes.keys()
