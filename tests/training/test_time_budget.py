"""A run ends at its budget of time, with its whole schedule, and its fits repeat to the bit."""

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise, product

import pytest

from gearshift.training.callbacks.base import Action
from gearshift.training.optim.fitted_schedule import FittedSchedule
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.settings import SettingError
from gearshift.training.time_budget import TimeBudget, fitted
from gearshift.training.train_plan import Fit, solve
from tests.training.ranks import timed_run
from tests.training.shelf import Shelf
from tests.training.test_resume import history, same
from tests.training.tiny import (
    RecordingCallback,
    TinyMetric,
    TinyTask,
    make_settings,
    one_rank,
    run_tiny,
    ticking,
)

SCHEDULES = ("cosine", "linear", "wsd", "one-cycle", "constant")
EVALUATION_S, SAVE_S, BUDGET_S = 0.4, 0.2, 100.0
MOST_S = 1.015 * BUDGET_S
"""With what a fit leaves alone, since it is less than the noise."""


def plan_of(settings, **changes):
    return solve(
        settings,
        samples=8000,
        global_batch=8,
        micro_batch=8,
        world_size=1,
        units="",
        time_s=BUDGET_S,
        **changes,
    )


@dataclass
class Simulated:
    """A run on a machine whose step takes `step_s(used seconds)`; its clock is a number."""

    step_s: object
    evaluation_s: float = EVALUATION_S
    first_s: float = 3.0
    save_s: float = SAVE_S
    saved: list = field(default_factory=list)
    """The steps with a checkpoint on the way."""

    def run(self, **changes):
        """The seconds, the factor of each step, its plan, and the seconds before each fit."""
        settings = make_settings(train={"epochs": None}, **changes)
        plan = plan_of(settings)
        schedule = LrSchedule(settings.schedule, plan)
        budget = TimeBudget(BUDGET_S, plan, settings)
        used, steps_s, step, factors, fitted_at = 2.0, 0.0, 0, [], []
        while step < plan.total_steps:
            factors.append(schedule.factor(step))
            seconds = self.step_s(used) if step else self.first_s
            used, steps_s, step = used + seconds, steps_s + seconds, step + 1
            if step < plan.total_steps and budget.is_due(step, plan.total_steps):
                budget.mark(step, steps_s)
                if budget.step_s:
                    budget.evaluation_s, budget.save_s = self.evaluation_s, self.save_s
                    facts = budget.decide(plan, step, used)
                    assert facts["needed_s"] <= MOST_S
                    fit = Fit(step, facts["total_steps"], facts["evaluates_until"])
                    if fit[1:] != (plan.total_steps, plan.evaluates_until):
                        fitted_at.append(used)
                        before = schedule.factor(step)
                        plan = fitted(plan, settings, fit)
                        schedule = FittedSchedule(settings.schedule, plan, schedule)
                        if step < plan.total_steps - 1:
                            assert schedule.factor(step) == pytest.approx(before, abs=1e-9)
            if step < plan.total_steps and plan.evaluates_at(step):
                used += self.evaluation_s
            if step < plan.total_steps and plan.saves_at(step):
                used += self.save_s
                self.saved.append(step)
        return used + self.evaluation_s + self.save_s, factors, plan, fitted_at


MACHINES = {
    "steady": lambda used: 0.05,
    "busy in the middle": lambda used: 0.15 if 30 < used < 60 else 0.05,
    "busy to the end": lambda used: 0.15 if used > 60 else 0.05,
    "faster from the middle on": lambda used: 0.02 if used > 50 else 0.05,
    "a little slower and slower": lambda used: 0.05 + used / 8000,
    "slow": lambda used: 4.0,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_ends_at_its_budget_with_the_last_factor_of_its_schedule(name, machine):
    schedule = {"name": name, "warmup": "5%" if name == "linear" else 10, "final": 0.1}
    step_s = MACHINES[machine]
    used, factors, plan, fitted_at = Simulated(step_s).run(
        schedule=schedule, eval={"every": "20%"}, save={"every": "10%"}
    )
    assert used <= BUDGET_S + step_s(used) + SAVE_S
    assert used >= 0.95 * BUDGET_S
    whole = make_settings(train={"max_steps": plan.total_steps}, schedule=schedule)
    last = LrSchedule(whole.schedule, replace(plan, fits=())).factor(plan.total_steps - 1)
    assert factors[-1] == pytest.approx(last, abs=1e-9)
    jumps = [abs(after - before) for before, after in pairwise(factors[20:])]
    if machine != "slow":
        assert max(jumps, default=0.0) < 0.1  # the drop at the end of wsd is its steepest
    if machine == "steady":
        assert max(fitted_at) < BUDGET_S / 2  # from then on the length is fixed


@pytest.mark.parametrize(
    ("every", "evaluation_s", "save_every"), product((200, "25%"), (11.0, 30.0), (None, 40))
)
def test_steps_follow_where_an_evaluation_does_not_fit(every, evaluation_s, save_every):
    used, _, plan, _ = Simulated(lambda used: 0.2, evaluation_s).run(
        eval={"every": every}, save={"every": save_every}
    )
    assert 0.95 * BUDGET_S <= used <= BUDGET_S + SAVE_S
    if evaluation_s == 30.0:
        assert min(fit.evaluates_until for fit in plan.fits) < plan.total_steps


@pytest.mark.parametrize("first_s", [3.0, 30.0])
@pytest.mark.parametrize(
    ("evaluation_s", "save_s"), [(0.4, 0.2), (4.0, 0.2), (0.4, 4.0), (4.0, 4.0)]
)
def test_a_budget_is_kept_with_dear_evaluations_dear_saves_and_a_slow_start(
    evaluation_s, save_s, first_s
):
    machine = Simulated(lambda used: 0.05, evaluation_s, first_s, save_s)
    used, *_ = machine.run(eval={"every": "20%"}, save={"every": "10%"})
    assert 0.93 * BUDGET_S <= used <= MOST_S
    assert 8 <= len(machine.saved) <= 10


def assert_decays_from(rates, step):
    """Up to `step` updates the rate is at its peak, and then it falls."""
    assert rates[step - 1] == max(rates)
    assert all(later < earlier for earlier, later in pairwise(rates[step:]))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_checkpoint_before_a_decay_is_kept_however_long_the_run_becomes(machine):
    schedule = {"name": "wsd", "warmup": 5, "decay": "40%"}
    simulated = Simulated(MACHINES[machine])
    _, factors, plan, fitted_at = simulated.run(schedule=schedule)
    assert fitted_at
    assert plan.keep_at in simulated.saved
    assert_decays_from(factors, plan.keep_at)


def decided(**changes):
    """What two steps of a second each lead to, with an evaluation of 4 seconds."""
    settings = make_settings(**changes, train={"epochs": None, "max_steps": 90})
    plan = plan_of(settings)
    budget = TimeBudget(BUDGET_S, plan, settings)
    for step in (1, 2):
        assert budget.step_s == 0
        budget.mark(step, float(step))
    budget.evaluation_s = 4.0
    facts = budget.decide(plan, 2, 3.0)
    return facts["total_steps"], facts["evaluates_until"]


def test_the_earlier_end_of_steps_and_time_counts():
    assert decided() == (90, 90)
    # Of 95.5 seconds, half of a step included, six evaluations on the way take 24, and the one at
    # the end 5.5.
    assert decided(eval={"every": 10}) == (68, 68)
    # Four steps do instead of the evaluation after step 76.
    assert decided(eval={"every": 19}) == (80, 75)
    # Without one at the end, the one that is due with the last step counts.
    assert decided(eval={"every": 89, "last": False}) == (90, 90)


def test_a_budget_shorter_than_a_step_and_an_evaluation_names_the_shortest():
    with pytest.raises(SettingError) as error:
        run_tiny(one_rank(), time_s=1e-6, train={"epochs": None})
    assert error.value.key == "train.time"
    assert error.value.fix.startswith("--for ")


CHANGES = {
    "train": {"epochs": None, "ema": 0.9},
    "schedule": {"name": "cosine", "warmup": "10%", "final": 0.1},
    "eval": {"every": 40},
    "save": {"every": 20, "keep_last": 1000},
    "log": {"every": 1},
}


def timed(**changes):
    with ticking():
        return run_tiny(one_rank(), TinyTask(dropout=0.5), **CHANGES, **changes)


@pytest.fixture(scope="module")
def whole():
    return timed(time_s=2.0)


def test_a_run_without_a_length_ends_by_its_budget_with_the_last_rate(whole):
    fits = [facts["total_steps"] for kind, facts in whole.recorder.events if kind == "fitted"]
    last = whole.outcome.steps
    assert fits[-1] == last > 2
    saved = whole.shelf.saved[last]["facts"]["fits"]
    assert [total for _, total, _ in saved] == fits
    settings = make_settings(**CHANGES)
    plan = replace(plan_of(settings), total_steps=last)
    schedule = LrSchedule(settings.schedule, plan)
    assert whole.recorder.lines[-1].lr == settings.optim.lr * schedule.factor(last - 1)


@pytest.mark.parametrize("start", [2, 40])  # after two steps a checkpoint has no fit yet
def test_a_replay_takes_the_fits_of_its_run_and_is_equal_bit_by_bit(whole, start):
    end = max(step for step in whole.shelf.saved if step % 20 == 0)
    fits = whole.shelf.saved[end]["facts"]["fits"]
    rest = timed(before=whole.shelf.before(start), until=end, fits=fits)
    whole_lines, _ = history(whole, after=start)
    lines, _ = history(rest)
    assert lines == [line for line in whole_lines if line[0] <= end]
    assert same(rest.shelf.saved[end]["pieces"], whole.shelf.saved[end]["pieces"])


def test_a_resumed_run_goes_on_from_the_fits_of_its_checkpoint(whole):
    step = sorted(whole.shelf.saved)[2]
    before = whole.shelf.before(step)
    used_s = whole.shelf.saved[step]["facts"]["wall_s"]
    rest = timed(before=before, time_s=used_s + 1)
    fits = rest.shelf.saved[rest.outcome.steps]["facts"]["fits"]
    known = whole.shelf.saved[step]["facts"]["fits"]
    assert fits[: len(known)] == known
    # Up to the next fit of either the rates are those of the whole run.
    both = [*fits, *whole.shelf.saved[whole.outcome.steps]["facts"]["fits"]]
    until = min(at for at, *_ in both if at >= step)
    rates = {line.step: line.lr for line in whole.recorder.lines}
    for line in rest.recorder.lines:
        assert line.step > until or line.lr == rates[line.step]
    lost = timed(before=replace(before, lost_s=1000.0), time_s=used_s + 1)
    assert lost.outcome.steps == step + 3  # what was lost counts


def test_two_ranks_fit_alike(two_ranks):
    runs = two_ranks.run(timed_run, {**CHANGES, "time_s": 2.0})
    steps = runs[0]["outcome"].steps
    fits = [run["saved"][steps]["fits"] for run in runs]
    assert fits[0] == fits[1]
    assert fits[0][-1][1] == steps == runs[1]["outcome"].steps
    rates = [[line.lr for line in run["lines"]] for run in runs]
    assert rates[0] == rates[1]


def test_a_task_that_requests_a_stop_still_ends_early():
    callback = RecordingCallback({5: Action.STOP})
    run = run_tiny(one_rank(), callback=callback, time_s=60.0, train={"epochs": None})
    assert run.outcome.steps == 5


class Clock:
    """A clock that the work of a run moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class DearTask(TinyTask):
    """Moves a clock in its loss, most of all in the first one, and in its metric."""

    def costs(self, clock, first_s, step_s, evaluation_s):
        self.clock, self.next_s, self.step_s = clock, first_s, step_s
        self.evaluation_s = evaluation_s
        return self

    def loss(self, model, batch):
        self.clock.now += self.next_s
        self.next_s = self.step_s
        return super().loss(model, batch)

    def metric(self):
        task = self

        class Dear(TinyMetric):
            def update(self, model, batch):
                task.clock.now += task.evaluation_s
                return super().update(model, batch)

        return Dear()


class DearShelf(Shelf):
    """Moves a clock with each save."""

    def costs(self, clock, save_s):
        self.clock, self.save_s = clock, save_s
        return self

    def save(self, *arguments):
        super().save(*arguments)
        self.clock.now += self.save_s


@pytest.mark.parametrize(
    ("first_s", "evaluation_s", "save_s"),
    [(0.1, 0.0, 0.0), (0.1, 0.5, 0.0), (0.1, 0.0, 2.0), (20.0, 0.5, 2.0)],
)
def test_a_run_keeps_its_budget_whatever_it_spends_it_on(
    monkeypatch, first_s, evaluation_s, save_s
):
    """A step has four micro-batches, an evaluation of seven samples four batches."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    task = DearTask().costs(clock, first_s, 0.1, evaluation_s)
    shelf = DearShelf().costs(clock, save_s)
    changes = {"schedule": {"name": "wsd", "warmup": 5, "decay": "40%"}}
    changes |= {"train": {"epochs": None}, "eval": {"every": "20%"}}
    changes |= {"save": {"every": "10%", "keep_best": 0, "load_best": False}}
    run = run_tiny(one_rank(), task, shelf=shelf, time_s=BUDGET_S, **changes)
    assert 0.9 * BUDGET_S <= clock.now <= MOST_S
    assert run.outcome.wall_s == pytest.approx(clock.now)
    assert 5 <= len(run.recorder.evaluations) <= 8
    # The checkpoint before the decay is there, and the writer was told to keep it.
    assert shelf.keep.at in shelf.saved
    rates = [step.lr for step in run.recorder.steps]
    assert_decays_from(rates, shelf.keep.at)
