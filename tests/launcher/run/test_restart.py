"""Failed ranks are restarted from the newest checkpoint, up to the configured number."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.run import execute
from gearshift.launcher.run.job_generation import JobGeneration
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import generations
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.slurm.environment import Generation
from gearshift.training.storage import Storage
from tests.control_group import limited
from tests.launcher.given import python, resolved
from tests.launcher.runs import begun, saved, trained

SETTINGS = resolved("engine.max_restarts=2", nproc="2")
ENDED = RunEnd("ended", 0)
FAILED = RunEnd("failed", 1, 1, text="error: it broke", trace="its lines")


def out_of_memory(micro_batch=None):
    return RunEnd("out of memory", 1, text="error: too much", micro_batch=micro_batch)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a plan whose attempts end in turn as given: the last end, and the plans tried."""
    monkeypatch.chdir(tmp_path)

    def repeat(*ends, settings=SETTINGS, during=lambda: None, resume=None):
        folder = begun(Path("x"), settings) if not Path("x").exists() else Path("x")
        tried, shown = [], []

        def attempt(plan):
            tried.append(plan)
            during()
            return ends[len(tried) - 1]

        end = execute.repeat(
            RunPlan(settings, resume, folder=folder, console=True), attempt, shown.append
        )
        assert shown == [each for each in ends[: len(tried)] if each.kind != "ended"]
        return end, tried

    return repeat


def restarts(capfd):
    """The printed lines about restarts."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("restart")]


def test_failures_are_logged_and_the_ranks_restarted(run, capfd):
    end, tried = run(FAILED, FAILED, FAILED)
    assert end is FAILED
    lines = restarts(capfd)
    assert lines == ["restart 1 of 2 from the beginning", "restart 2 of 2 from the beginning"]
    log = Path("x/log.txt").read_text()
    assert "error: it broke\nits lines" in log and lines[1] in log
    again = ResumeRequest(Path("x"))
    assert [plan.resume for plan in tried] == [None, again, again]


def test_after_out_of_memory_the_ranks_restart_with_smaller_micro_batches(run, capfd):
    settings = resolved("train.micro_batch=8", "train.accumulation=2", nproc="2")
    end, _ = run(out_of_memory(), out_of_memory(), ENDED, settings=settings)
    assert end is ENDED
    assert restarts(capfd) == [
        f"restart with micro-batches of {size} from the beginning" for size in (4, 2)
    ]
    events = [json.loads(line) for line in Path("x/events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["out_of_memory"] * 2
    assert (events[1]["facts"]["micro_batch"], events[1]["facts"]["accumulation"]) == (2, 4)


@pytest.mark.parametrize(
    ("end", "during"),
    [
        (RunEnd("invalid input", 2, text="error: x"), lambda: None),
        (RunEnd("ended", 1), lambda: None),  # a loss is not finite
        (replace(FAILED, signals=frozenset({signal.SIGTERM})), lambda: None),
        (FAILED, lambda: shutil.rmtree("x")),
    ],
    ids=["invalid input", "agreed", "after a signal", "without its folder"],
)
def test_a_failure_that_would_recur_or_after_a_signal_is_not_restarted(run, end, during):
    assert run(end, during=during)[0] is end
    assert run(FAILED, settings=resolved(nproc="2"))[0] is FAILED  # without max_restarts


X = ResumeRequest(Path("x"))
RESET = ResumeRequest(Path("x"), 10, ("schedule",))
FORK = ResumeRequest(Path("old"))


@pytest.mark.parametrize(
    ("resume", "later", "expected", "step"),
    [
        (None, [], X, None),
        (None, [5], X, 5),
        (RESET, [], RESET, 10),
        (RESET, [20], X, 20),  # which has the effect of --reset
        (FORK, [], FORK, 20),
        (FORK, [15], FORK, 20),  # no progress
        (FORK, [25], X, 25),
    ],
)
def test_a_restart_resumes_from_what_was_saved_since_or_again(
    run, capfd, resume, later, expected, step
):
    trained(Path("old"), SETTINGS, 10, 20)
    trained(Path("x"), SETTINGS, *([10] if resume is RESET else []))

    def save():
        for each in later:
            saved(Path("x"), each, SETTINGS)
        later.clear()

    _, tried = run(FAILED, ENDED, resume=resume, during=save)
    assert [plan.resume for plan in tried] == [resume, expected]
    where = "the beginning" if step is None else f"step {step}"
    assert restarts(capfd) == [f"restart 1 of 2 from {where}"]


FIRST, SECOND = Generation("12", 0), Generation("12", 1)


def write_generation(run, from_step=0, step=None, generation=FIRST):
    """The files of a generation that started at `from_step` and saved at `step`."""
    generations.claim(run, generation)
    generations.record_start(Storage(run), generation, from_step, 1)
    (run / "settings.yaml").touch()
    if step is not None:
        saved(run, step, resolved())


def args_of(run, cli_args, generation=SECOND):
    return JobGeneration(generation, run, 0).begin(cli_args)


def test_a_generation_keeps_its_arguments_until_one_before_it_has_saved(tmp_path):
    JobGeneration(FIRST, tmp_path, 0).claim()
    saved(tmp_path, 5, resolved())  # of the run before this job
    write_generation(tmp_path, from_step=5)
    typed = [
        CliArgs(resume=str(tmp_path), reset=("schedule",)),
        CliArgs(resume="auto", reset=("data",)),
    ]
    assert all(args_of(tmp_path, each, FIRST) is each for each in typed)
    assert all(args_of(tmp_path, each) is each for each in typed)
    saved(tmp_path, 6, resolved())
    for each in (CliArgs(), CliArgs(resume="other"), *typed):
        again = args_of(tmp_path, each)
        assert (again.resume, tuple(again.reset)) == ("auto", ())


def test_a_fork_that_saved_nothing_is_copied_again(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_generation(run)
    cli_args = CliArgs(resume=str(tmp_path / "other"))
    assert args_of(run, cli_args) is cli_args
    assert [path.name for path in run.iterdir()] == ["slurm"]


def test_lost_steps_and_the_share_of_time_are_counted_over_all_generations(tmp_path):
    logged = [{"kind": "train", "step": step, "step_time_s": 0.5} for step in (1, 4, 7)]
    write_generation(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in logged))
    write_generation(tmp_path, from_step=5, generation=SECOND)
    found = generations.requeue_statistics(tmp_path, SECOND)
    assert (found["requeues"], found["lost_steps"]) == (1, 2)
    events = (tmp_path / "events.jsonl").read_text()
    assert '"requeued"' in events and '"lost_steps": 2' in events


LIMIT = 256 * 2**20
SUPERVISED = """
import sys
from pathlib import Path
from gearshift.launcher.run import execute, supervisor
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from tests.launcher.given import python, resolved
folder, settings = Path(sys.argv[1]), resolved("train.global_batch=8", batch_size="8")
run_folder.create(settings, folder, "x")
supervisor.MODULE = "tests.launcher.ranks"
plan = RunPlan(settings, folder=folder, console=True)
print(execute.repeat(plan, supervisor.supervise, lambda end: None).kind)
"""


def test_a_rank_that_the_kernel_kills_restarts_with_half_the_micro_batch(tmp_path):
    folder, scene = tmp_path / "run", {"SCENE": "memory", "FILLS": str(2 * LIMIT)}
    with limited(LIMIT) as prefix:
        done = python("-c", SUPERVISED, folder, prefix=prefix, env=scene)
    assert done.stdout.splitlines()[-1] == "ended", done.stderr
    assert (folder / "attempts").read_text().split() == ["8", "4", "2"]
    assert (folder / "events.jsonl").read_text().count("the kernel killed 1 process") == 2
