from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import Origin
from gearshift.launcher.run import experience
from gearshift.launcher.run.experience import data_settings, resolve_experience
from gearshift.launcher.run_folder import experiences
from gearshift.launcher.run_folder.experiences import Experience, Ledger
from gearshift.launcher.run_folder.run_plan import ExperienceSpec
from tests.launcher.given import resolved
from tests.launcher.runs import trained

RUN, BOTH = Path("r"), [0, 1]
RECORDED = experience.recorded_settings(resolved().settings.continual)


def test_an_experience_reads_its_own_folder_and_the_first_data_changes_only_the_path():
    found = data_settings(resolved().settings, experiences.data_folder(RUN, 1))
    assert (found.data.path, found.data.on_bad) == ("r/experiences/0001/data", "skip")
    run = resolved()
    found = resolve_experience(run, ExperienceSpec(RUN, [0], {})).settings
    assert found.data.path == "r/experiences/0000/data"
    assert found.schedule == run.settings.schedule and found.train == run.settings.train


@pytest.mark.parametrize(
    ("schedule", "used"),
    [("linear", "linear"), ("cosine-restarts", "cosine"), ("one-cycle", "cosine")],
)
def test_an_experience_warms_up_to_a_share_of_the_peak_and_says_what_it_overrides(schedule, used):
    run = resolved(f"schedule.name={schedule}", "optim.lr=0.01", "train.max_steps=7")
    resolved_again = resolve_experience(run, ExperienceSpec(RUN, BOTH, RECORDED))
    found = resolved_again.settings
    assert (found.schedule.name, found.schedule.warmup) == (used, "5%")
    assert found.optim.lr == 0.01 * 0.3
    assert (found.train.epochs, found.train.max_steps) == (1.0, None)
    assert not found.loader.persistent
    assert (run.settings.optim.lr, run.settings.train.max_steps) == (0.01, 7)
    value = resolved_again.values["optim.lr"]
    assert value.origin == Origin("adapted to this machine", "continual.lr_scale", "0.01 × 0.3")
    assert value.replaced[0] == (0.01, run.values["optim.lr"].origin)


@pytest.fixture
def run(tmp_path):
    """A run with two experiences after the first data, and a postponed one between them."""
    Ledger(
        [
            Experience(0, {}, "trained", 0, 10),
            Experience(1, {}, "trained", 10, 20, replayed=(0,)),
            Experience(2, {}, "postponed", 20),
            Experience(3, {}, "training", 20, replayed=(0, 1)),
        ]
    ).save(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("after", "upto", "numbers"), [(0, 5, [0]), (4, 10, [0]), (10, 20, [0, 1]), (20, 25, [0, 1, 3])]
)
def test_the_spec_of_past_steps_has_the_folders_they_were_trained_on(run, after, upto, numbers):
    found = experience.spec_at(run, after, upto)
    assert (found.run, found.numbers) == (run, numbers)


@pytest.mark.parametrize(("after", "upto"), [(0, 12), (19, 21)])
def test_steps_of_two_experiences_have_no_common_spec(run, after, upto):
    with pytest.raises(SettingsError):
        experience.spec_at(run, after, upto)
    assert experience.spec_at(run / "not continual", 0, 9) is None


def test_a_plain_run_becomes_a_continual_one_only_with_all_files_as_new_data(here, said):
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("A text.\n" * 20)
    trained(here / "runs" / "mine", resolved(data=str(here / "texts")), 100)
    continual = ("resume", "runs/mine", "--continuous-learning", "--dry-run", "--json")
    [error] = said(*continual, code=2)["diagnostics"]
    assert (error["key"], error["where"]) == ("continual.enabled", "--continuous-learning")
    assert "--reset data" in error["allowed"]
    said(*continual, "--reset", "data")
    Ledger([Experience(0, {}, "trained")]).save(here / "runs" / "mine")
    said(*continual)
