"""What a later life of a job is told to do, by the words that were typed for the first."""

import json

import pytest

from launcher.config.provenance import CliArgs
from launcher.run.job_generation import Life
from launcher.run_folder import claim
from launcher.run_folder import generations as lives
from slurm.environment import Generation
from tests.launcher.given import resolved
from tests.launcher.runs import saved

FIRST, SECOND = Generation("12", 0), Generation("12", 1)


def trained(run, from_step=0, step=None, generation=FIRST):
    """What a life leaves that began at `from_step` and saved at `step`."""
    claim.claim(run, generation)
    lives.begin(run, generation, from_step, 1, None)
    (run / "settings.yaml").touch()
    if step is not None:
        saved(run, step, resolved())


def begun(run, words: CliArgs, generation: Generation = SECOND) -> CliArgs:
    return Life(generation, run, 0).begin(words)


def test_the_first_life_does_what_was_typed(tmp_path):
    words = CliArgs(resume="other", reset=("data",))
    Life(FIRST, tmp_path, 0).claim()
    assert begun(tmp_path, words, FIRST) is words


def test_a_later_life_goes_on_whatever_was_typed(tmp_path):
    trained(tmp_path, 0, 5)
    for typed in (CliArgs(), CliArgs(resume="other"), CliArgs(resume="auto", reset=("data",))):
        words = begun(tmp_path, typed)
        assert (words.resume, tuple(words.reset)) == ("auto", ())


def test_without_a_checkpoint_of_the_job_the_words_still_count(tmp_path):
    saved(tmp_path, 5, resolved())
    trained(tmp_path, from_step=5)
    words = CliArgs(resume=str(tmp_path), reset=("schedule",))
    assert begun(tmp_path, words) is words
    saved(tmp_path, 6, resolved())
    assert begun(tmp_path, words).resume == "auto"


def test_a_copy_that_saved_nothing_is_made_again(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    trained(run)
    words = CliArgs(resume=str(tmp_path / "other"))
    assert begun(run, words) is words
    assert [path.name for path in run.iterdir()] == ["slurm"]


def test_another_job_has_no_part_in_the_run(tmp_path):
    trained(tmp_path, 0, 5)
    words = CliArgs()
    assert begun(tmp_path, words, Generation("13", 1)) is words
    assert not claim.belongs(tmp_path, FIRST)  # nor its own claim alone


def test_a_folder_that_holds_a_run_is_not_claimed_before_its_lock_is_held(tmp_path):
    (tmp_path / "settings.yaml").touch()
    Life(FIRST, tmp_path, 0).claim()
    assert claim.lines(tmp_path) == []


@pytest.mark.parametrize("line", ["", "{", '{"kind": "claimed"}', "[1]", "3"])
def test_half_a_line_of_a_kill_is_left_out(tmp_path, line):
    claim.claim(tmp_path, FIRST)
    with (tmp_path / "slurm" / claim.NAME).open("a") as file:
        file.write(line)
    assert claim.claimed(tmp_path) == [FIRST]
    claim.claim(tmp_path, SECOND)
    assert claim.claimed(tmp_path) == [FIRST, SECOND]


def test_lost_steps_and_the_share_of_time_are_counted_over_all_lives(tmp_path):
    logged = [{"kind": "train", "step": step, "step_time_s": 0.5} for step in (1, 4, 7)]
    trained(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in logged))
    trained(tmp_path, from_step=5, generation=SECOND)
    found = lives.account(tmp_path, SECOND)
    assert (found["requeues"], found["lost_steps"]) == (1, 2)
    assert found["effective_training_share"] > 0
    told = (tmp_path / "events.jsonl").read_text()
    assert '"requeued"' in told and '"lost_steps": 2' in told
