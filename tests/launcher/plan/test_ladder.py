"""The ladder: its rungs in order, the one to take, and that each fits where it should."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from gearshift.launcher.base.diagnostics import SettingsError, plain
from gearshift.launcher.config.machine import CONTEXT_BYTES
from gearshift.launcher.plan.ladder import (
    ENGINE,
    NUMBERS,
    RUNGS,
    TRAINED,
    Rung,
    choose_step,
    climb,
    first_fit,
)
from gearshift.launcher.plan.plan import open_planner
from gearshift.launcher.plan.target import Described
from tests.launcher.given import ONE_GPU, resolved

FULL = {"memory.activation_checkpointing": "full"}
ORDER = (
    Rung("smaller", is_usual=True),
    Rung("recomputed", FULL, is_usual=True),
    Rung("unknown", {"optim.unknown": 1}),
    Rung("of another schedule", {"schedule.t_mult": 3.0}),
    Rung("refused", {"log.every": 7}),
    Rung("without effect", {"log.every": 9}),
    Rung("of the host", {"loader.workers": 0}, saves="host"),
    Rung("rounded", {"optim.weight_decay": 0.5}, NUMBERS),
    Rung("on top", {"memory.return_freed": True}),
    Rung("other", {"train.ema": 0.5}, TRAINED, drops=("optim.weight_decay",)),
)
SAVES = {
    "optim.weight_decay": 20,
    "memory.return_freed": 10,
    "train.ema": 40,
    "schedule.t_mult": 50,
    **dict.fromkeys(FULL, 30),
}


def planned(needs, limit, cost=1.0):
    """A plan on a GPU of `limit` bytes."""
    return SimpleNamespace(
        device=needs,
        host_bytes=0,
        fits=needs <= limit,
        lacks_device=needs > limit,
        lacks_ram=False,
        target=SimpleNamespace(device="cuda", ranks=1),
        cost=cost,
    )


def climbed(limit, *sets, **options):
    """The steps for a run that needs 100 bytes, 5 less for each halving of its micro-batch of 8."""
    run = resolved("train.micro_batch=8", "train.accumulation=1", *sets, machine=ONE_GPU)
    tried = []

    def plan_with(change):
        tried.append(change)
        if change.get("log.every") == 7:
            raise SettingsError.of("no such combination")
        micro = change.get("train.micro_batch", 8)
        smaller = {8: 0, 4: 5, 2: 10, 1: 15}[micro]
        saved = smaller + sum(n for key, n in SAVES.items() if key in change)
        return planned(100 - saved, limit, cost=1 + (8 / micro - 1) / 2)

    return list(climb(run, plan_with({}), plan_with, ORDER, **options)), tried


def test_rungs_come_in_order_without_those_that_do_not_exist_or_save_nothing():
    steps, _ = climbed(0)
    assert [(step.name, step.effect) for step in steps] == [
        ("smaller", ""),
        ("recomputed", ""),
        ("rounded", NUMBERS),
        ("on top", NUMBERS),
        ("other", TRAINED),
    ]
    least = {"train.micro_batch": 1, "train.global_batch": 8}
    *_, below, last = (step.change for step in steps)
    assert below == {**FULL, "optim.weight_decay": 0.5, "memory.return_freed": True, **least}
    assert last == {**FULL, "train.ema": 0.5, "memory.return_freed": True, **least}
    assert choose_step(steps) is None


@pytest.mark.parametrize(
    ("limit", "name", "micro"),
    [
        (96, "recomputed", None),  # faster than smaller micro-batches, which fit as well
        (60, "recomputed", 2),
        (54, "rounded", None),
        (36, "rounded", 1),
        (26, "on top", 1),
        (8, "other", 1),
    ],
)
def test_the_one_to_take_is_the_fastest_usual_one_or_the_first(limit, name, micro):
    steps, tried = climbed(limit)
    take = choose_step(steps)
    assert (take.name, take.change.get("train.micro_batch")) == (name, micro)
    assert take is steps[-1] and len(tried) < 20  # rungs that cost more are not planned


def test_settings_of_the_user_stay_in_rungs_that_change_the_training():
    given = ("memory.activation_checkpointing=none", "optim.weight_decay=0.1")
    steps, _ = climbed(0, *given)
    assert [step.name for step in steps] == ["smaller", "recomputed", "on top", "other"]


def test_a_rung_that_cannot_fit_by_arithmetic_is_not_planned():
    def bound_with(change):
        if change.get("log.every") == 7:
            raise SettingsError.of("no such combination")
        return planned(5 if "train.ema" in change else 30, 26)

    steps, tried = climbed(26, bound_with=bound_with)
    assert [step.name for step in steps if step.is_bound] == [
        "smaller",
        "recomputed",
        "without effect",
        "rounded",
        "on top",
    ]
    assert {change.get("train.ema") for change in tried[1:]} == {0.5}
    assert choose_step(steps).name == "other"


@pytest.mark.parametrize(("least", "absent"), [(0, ()), (3, (1, 2)), (7, (1, 2)), (8, ())])
def test_what_fits_is_found_with_few_plans(least, absent):
    tried = []

    def plan_with(change):
        number = change["number"]
        tried.append(number)
        if number in absent:
            raise SettingsError.of("no such combination")
        return SimpleNamespace(fits=number >= least)

    changes = [{"number": number, "train.micro_batch": 8 - number} for number in range(8)]
    at, plan = first_fit(changes, plan_with)
    assert (at, plan.fits) == (min(least, 7), least < 8)
    assert len(tried) <= (4 if plan.fits else 1)
    assert first_fit([{"number": 1}], plan_with) is None or not absent


@pytest.mark.slow
def test_each_rung_of_a_small_run_fits_where_it_needs_no_more():
    run = resolved("compile=off", machine=ONE_GPU, engine="local")
    with open_planner(run, Described(ONE_GPU)) as planner:

        def with_change(change):
            sets = [f"{key}={plain(value)}" for key, value in change.items() if key != ENGINE]
            engine = change.get(ENGINE, "local")
            return resolved("compile=off", *sets, machine=ONE_GPU, engine=engine)

        def steps(limit):
            target = Described(replace(ONE_GPU, gpu_bytes=limit + CONTEXT_BYTES)).target(run)

            def plan_with(change):
                return replace(planner.plan(with_change(change)), target=target)

            return list(climb(run, plan_with({}), plan_with))

        all_steps = steps(2**10)
        names = [step.name for step in all_steps]
        assert names[:2] == ["smaller micro-batch", "activation checkpointing"]
        assert names[-1] == "weights offload", "no rung for pretrained models"
        assert names == [rung.name for rung in RUNGS if rung.name in names]
        plan = planner.plan(run)
        for step in all_steps:
            bound = planner.bound(with_change(step.change), plan)
            assert bound.device_bytes + bound.host_bytes > 0, "of weights"
            assert bound.device_bytes <= step.plan.device_bytes
            assert bound.host_bytes <= step.plan.host_bytes
            take = choose_step(steps(step.plan.device_bytes))
            assert take is not None and take.plan.device_bytes <= step.plan.device_bytes
            assert names.index(take.name) <= names.index(step.name)
            assert take.plan.batching.global_batch == 8
