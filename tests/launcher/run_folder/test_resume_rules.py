"""Each setting may change freely, with --reset, or never; errors say which."""

import pytest

from gearshift.launcher.config import presets
from gearshift.launcher.config.schema import setting_infos
from gearshift.launcher.run_folder import resume_rules
from gearshift.launcher.run_folder.checkpoint_search import SavedCheckpoint
from gearshift.launcher.run_folder.resume_rules import PARTS, RULES, rule_of
from gearshift.models.catalog import FAMILIES
from gearshift.training.train_plan import StartSteps
from tests.launcher.given import resolved

EXPECTED = {
    "free": "device precision compile promise engine.name engine.max_restarts memory.attention "
    "loader.workers log.every limits.critical.gpu save.async stop.patience eval.every "
    "train.micro_batch train.accumulation train.on_nonfinite optim.lr optim.state",
    "optimizer": "optim.name optim.betas train.ema",
    "schedule": "schedule.warmup train.epochs train.max_steps",
    "data": "data.path train.seed train.global_batch eval.share",
    "never": "limits.profile model.size model.tokenizer mode stages eval.metric",
}


def test_a_changed_setting_is_free_needs_a_reset_or_is_refused():
    for rule, keys in EXPECTED.items():
        assert {key: rule_of(key) for key in keys.split()} == dict.fromkeys(keys.split(), rule)


def test_every_setting_of_every_family_has_one_rule_and_every_rule_is_about_one():
    keys = {key for family in FAMILIES for key in setting_infos(family)} | {presets.TASK_FOLDER}
    starts = [start for starts in RULES.values() for start in starts]
    used = set()
    for key in keys:
        fitting = [start for start in starts if key == start or key.startswith(f"{start}.")]
        assert fitting, key
        assert len({len(start) for start in fitting}) == len(fitting), key
        used |= {*fitting}
    assert set(starts) - used == set()
    with pytest.raises(ValueError):
        rule_of("dream.depth")


def before(*sets, **options):
    return {key: value.value for key, value in resolved(*sets, **options).values.items()}


def errors_of(now, reset=(), old=None):
    found = resume_rules.differences(before() if old is None else old, now)
    return list(resume_rules.errors_of(found, reset, now, "runs/x until step 10"))


WARMUP, ENTRIES = "schedule.warmup=4", "model.vocabulary=512"


@pytest.mark.parametrize(
    ("now", "key", "where", "resets"),
    [
        (resolved(WARMUP), "schedule.warmup", f"--set {WARMUP}", {"schedule"}),
        (resolved(ENTRIES), "model.vocabulary", f"--set {ENTRIES}", set()),
    ],
)
def test_a_change_is_refused_unless_its_part_is_reset(now, key, where, resets):
    [error] = errors_of(now)
    assert (error.key, error.where) == (key, where)
    assert {part for part in PARTS if not errors_of(now, reset=[part])} == resets
    assert all(f"--reset {part}" in error.fix for part in resets) and bool(error.fix) == bool(
        resets
    )


WSD = ("schedule.name=wsd", "schedule.warmup=5", "schedule.warmup_cap=null", "schedule.decay=20%")


@pytest.mark.parametrize(
    ("step", "old", "new", "steps", "rule"),
    [
        (80, (), (), "500", "free"),  # longer, before the decay
        (81, (), (), "500", "schedule"),
        (80, (), (), "90", "schedule"),
        (72, (), (), "90", "free"),
        (
            60,
            ("schedule.warmup_cap=10%",),
            ("schedule.warmup_cap=10%",),
            "500",
            "free",
        ),  # of 5 steps: 10, 50
        (
            60,
            ("schedule.warmup_cap=2%",),
            ("schedule.warmup_cap=2%",),
            "500",
            "schedule",
        ),  # 2 steps, 5
        (60, ("schedule.warmup=5%",), ("schedule.warmup=5%",), "500", "schedule"),  # 5 steps, 25
        (60, ("schedule.warmup=5%",), ("schedule.warmup=5",), "500", "free"),
        (60, ("schedule.name=constant",), (), "500", "free"),
        (60, (), ("schedule.name=constant",), "500", "free"),
        (60, ("schedule.name=plateau",), ("schedule.name=plateau",), "500", "free"),
        (60, ("schedule.name=plateau",), (), "500", "schedule"),  # it may have dropped the rate
        (60, (), ("schedule.name=linear",), "500", "schedule"),
    ],
)
def test_a_schedule_may_change_if_earlier_steps_had_the_same_learning_rates(
    step, old, new, steps, rule
):
    checkpoint = SavedCheckpoint(step, {}, epoch=step / 30)
    was, now = before(*WSD, *old, max_steps="100"), resolved(*WSD, *new, max_steps=steps)
    changed = resume_rules.differences(was, now, checkpoint=checkpoint)
    assert {each.rule for each in changed} == {rule}


def test_epochs_and_the_decay_count_from_where_a_reset_began_them():
    """Four epochs of 10 steps after step 20 end at 60, and the decay of 40 steps takes 8."""
    starts = StartSteps(data=20, schedule=20)
    old = before(*WSD, "train.max_steps=null", epochs="4")
    now = resolved(*WSD, "train.max_steps=null", epochs="8")
    for step, rule in ((52, "free"), (53, "schedule")):
        checkpoint = SavedCheckpoint(step, {}, starts, (step - 20) / 10)
        (found,) = resume_rules.differences(old, now, checkpoint=checkpoint)
        assert (found.key, found.rule) == ("train.epochs", rule)
