"""A rank that delays the others is named with its host; equal ranks never are."""

from __future__ import annotations

import statistics
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.engines.pool import Pool
from tests.training.uneven import train
from training.callbacks.callback_list import CallbackList
from training.step_timer import StepTimer
from training.stragglers import UNIT_S, Stragglers, median_without

SLOW = {"times": 12, "steps": 2000, "until": 1}
READS = {"reads": 20, "steps": 2000, "until": 1}
AGAIN = {"steps": 2000, "until": 2}


def reported(events):
    return [(kind, facts["rank"], facts["what"]) for kind, facts in events]


@pytest.mark.parametrize("engine", ["ddp", "fsdp", pytest.param("zero3", marks=pytest.mark.slow)])
def test_a_rank_that_computes_more_is_named_until_it_keeps_up(worlds: dict[int, Pool], engine):
    first, second = worlds[2].run(train, engine, [SLOW, AGAIN])
    assert reported(first) == [("straggler", 1, "step"), ("straggler_gone", 1, "step")]
    assert first == second
    facts = first[0][1]
    assert facts["seconds"] > 1.5 * facts["median_seconds"] > 0


def test_a_rank_that_waits_for_its_data_is_named(worlds: dict[int, Pool]):
    first, _ = worlds[2].run(train, "ddp", [READS])
    assert reported(first) == [("straggler", 1, "data")]


def test_a_single_slow_step_is_no_straggler(worlds: dict[int, Pool]):
    hiccup = {"times": 400, "steps": 1}
    first, _ = worlds[2].run(train, "ddp", [{"steps": 60}, hiccup, {"steps": 60}])
    assert reported(first) == []


def test_equal_ranks_are_not_named_on_a_busy_machine(worlds: dict[int, Pool]):
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(1)]
    try:
        first, _ = worlds[2].run(train, "ddp", [{"steps": 100}])
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert reported(first) == []


def test_times_of_a_step_that_is_logged_during_an_agreement_wait_for_the_next_one():
    world = SimpleNamespace(rank=0, size=2, device=torch.device("cpu"), broadcast=lambda *_: b"a")
    engine = SimpleNamespace(world=world, gathers_weights=False)
    stragglers = Stragglers(SimpleNamespace(stragglers=1.5), CallbackList([]), StepTimer())
    stragglers.start(engine, nn.Linear(1, 1), 0)

    def log(step: int) -> None:
        stragglers.note(SimpleNamespace(step=step, data_time_s=0.0, step_time_s=float(step)))

    log(1)  # left out: it compiles
    log(2)
    sent = stragglers.own_times()
    log(3)
    stragglers.update(sent)
    times = [sent[-1] * UNIT_S, stragglers.own_times()[-1] * UNIT_S]
    assert times == pytest.approx([2, 3])


@pytest.mark.parametrize("times", [[1.0, 2.0], [3.0, 1.0, 2.0], [5.0, 1.0, 4.0, 4.0], [1.0] * 5])
def test_the_median_excludes_the_own_rank(times):
    for number, own in enumerate(times):
        others = times[:number] + times[number + 1 :]
        assert median_without(sorted(times), own) == statistics.median(others)
