"""Failed ranks are restarted from the newest checkpoint, up to the configured number."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.config.provenance import CliArgs
from launcher.run import restart
from launcher.run.failures import RankReport
from launcher.run.job_generation import JobGeneration
from launcher.run.job_spec import Job
from launcher.run_folder import generations, run_folder
from launcher.run_folder.resume import ResumeRequest
from slurm.environment import Generation
from tests.control_group import limited
from tests.launcher.given import resolved
from tests.launcher.runs import begun, saved, trained
from training.storage import Storage

ROOT = Path(__file__).parents[3]
SETTINGS = resolved("engine.max_restarts=2", nproc="2")
ENDED = RankReport("ended", 0, 0, "here", 0.0)
FAILED = RankReport("failed", 1, 1, "here", 0.0, "error: it broke", "its lines")


def out_of_memory(micro_batch=None):
    return RankReport("out of memory", 1, 0, "here", 0.0, micro_batch=micro_batch)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a job whose attempts end in turn as given: the final report, and the jobs tried."""
    monkeypatch.chdir(tmp_path)

    def repeat(*reports, settings=SETTINGS, during=lambda forwarded: None):
        folder = begun(tmp_path / "x", settings)
        tried = []

        def attempt(job, show, forwarded):
            tried.append(job)
            during(forwarded)
            return reports[len(tried) - 1]

        return restart.repeat(Job(settings, folder, True), attempt, lambda report: None), tried

    return repeat


def restarts(capfd):
    """The printed lines about restarts."""
    lines = capfd.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("restart")]


def test_failures_are_logged_and_the_ranks_restarted(run, capfd):
    ending, tried = run(FAILED, FAILED, FAILED)
    assert ending is FAILED
    lines = restarts(capfd)
    assert lines == ["restart 1 of 2 from the beginning", "restart 2 of 2 from the beginning"]
    log = Path("x/log.txt").read_text()
    assert "error: it broke\nits lines" in log and lines[1] in log
    again = ResumeRequest(Path("x").absolute())
    assert [job.resume for job in tried] == [None, again, again]


def test_a_restart_resumes_from_the_newest_checkpoint(run, capfd):
    def save_once(forwarded):
        if not Path("x/checkpoints").exists():
            saved(Path("x"), 5, SETTINGS)

    ending, tried = run(FAILED, ENDED, during=save_once)
    assert (ending, len(tried)) == (ENDED, 2)
    assert restarts(capfd) == ["restart 1 of 2 from step 5"]


def test_after_out_of_memory_the_ranks_restart_with_smaller_micro_batches(run, capfd):
    settings = resolved("train.micro_batch=8", "train.accumulation=2", nproc="2")
    ending, _ = run(out_of_memory(), out_of_memory(), ENDED, settings=settings)
    assert ending is ENDED
    assert restarts(capfd) == [f"restart with micro-batches of {size} from the beginning" for size in (4, 2)]
    events = [json.loads(line) for line in Path("x/events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["out_of_memory"] * 2
    assert (events[1]["facts"]["micro_batch"], events[1]["facts"]["accumulation"]) == (2, 4)


def test_what_is_halved_is_the_micro_batch_that_a_run_has_reduced_itself(run):
    settings = resolved("train.global_batch=32", batch_size="16")
    _, tried = run(out_of_memory(4), ENDED, settings=settings)
    numbers = [job.resolved.batching for job in tried]
    assert [(each.micro_batch, each.accumulation) for each in numbers] == [(16, 2), (2, 16)]


@pytest.mark.parametrize(
    ("report", "during"),
    [
        (RankReport("invalid input", 2, 0, "here", 0.0), lambda forwarded: None),
        (RankReport("ended", 1, 0, "here", 0.0), lambda forwarded: None),  # a loss is not finite
        (FAILED, lambda forwarded: forwarded.add(signal.SIGTERM)),
        (FAILED, lambda forwarded: shutil.rmtree("x")),
    ],
    ids=["invalid input", "agreed", "after a signal", "without its folder"],
)
def test_a_failure_that_would_recur_or_after_a_signal_is_not_restarted(run, report, during):
    assert run(report, during=during)[0] is report
    assert run(FAILED, settings=resolved(nproc="2"))[0] is FAILED  # without max_restarts


RESET = ("schedule",)


@pytest.mark.parametrize(
    ("later", "expected"), [([], ResumeRequest(Path("x"), 10, RESET)), ([20], ResumeRequest(Path("x")))]
)
def test_a_restart_resets_again_unless_a_checkpoint_was_saved_since(tmp_path, monkeypatch, later, expected):
    monkeypatch.chdir(tmp_path)
    trained(Path("x"), SETTINGS, 10)
    first = restart.FirstAttempt(Job(SETTINGS, Path("x"), True, ResumeRequest(Path("x"), 10, RESET)))
    for step in later:
        saved(Path("x"), step, SETTINGS)
    job, step = first.again(SETTINGS)
    assert (job.resume, step) == (expected, max([10, *later]))


def test_a_fork_that_saved_nothing_resumes_from_the_old_run_again(tmp_path, monkeypatch):
    """Later checkpoints of the old run do not count as progress."""
    monkeypatch.chdir(tmp_path)
    trained(Path("old"), SETTINGS, 10, 20)
    job = Job(SETTINGS, Path("old"), True, ResumeRequest(Path("old"), 10))
    assert restart.FirstAttempt(job).again(SETTINGS) == (job, 10)
    begun(Path("new"), SETTINGS)
    job = Job(SETTINGS, Path("new"), True, ResumeRequest(Path("old")))
    first = restart.FirstAttempt(job)
    assert first.again(SETTINGS) == (job, 20)
    saved(Path("new"), 25, SETTINGS)
    assert first.again(SETTINGS) == (replace(job, resume=ResumeRequest(Path("new"))), 25)


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


def test_the_first_generation_keeps_its_arguments_and_a_later_one_resumes_whatever_they_are(tmp_path):
    cli_args = CliArgs(resume="other", reset=("data",))
    JobGeneration(FIRST, tmp_path, 0).claim()
    assert args_of(tmp_path, cli_args, FIRST) is cli_args
    write_generation(tmp_path, 0, 5)
    for start_args in (CliArgs(), CliArgs(resume="other"), CliArgs(resume="auto", reset=("data",))):
        cli_args = args_of(tmp_path, start_args)
        assert (cli_args.resume, tuple(cli_args.reset)) == ("auto", ())


def test_without_a_checkpoint_of_the_job_the_arguments_still_apply(tmp_path):
    saved(tmp_path, 5, resolved())
    write_generation(tmp_path, from_step=5)
    cli_args = CliArgs(resume=str(tmp_path), reset=("schedule",))
    assert args_of(tmp_path, cli_args) is cli_args
    saved(tmp_path, 6, resolved())
    assert args_of(tmp_path, cli_args).resume == "auto"


def test_a_fork_that_saved_nothing_is_copied_again(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_generation(run)
    cli_args = CliArgs(resume=str(tmp_path / "other"))
    assert args_of(run, cli_args) is cli_args
    assert [path.name for path in run.iterdir()] == ["slurm"]


def test_a_folder_that_holds_a_run_is_not_claimed_before_its_lock_is_held(tmp_path):
    (tmp_path / "settings.yaml").touch()
    JobGeneration(FIRST, tmp_path, 0).claim()
    assert generations.lines(tmp_path) == []


def test_lost_steps_and_the_share_of_time_are_counted_over_all_generations(tmp_path):
    logged = [{"kind": "train", "step": step, "step_time_s": 0.5} for step in (1, 4, 7)]
    write_generation(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in logged))
    write_generation(tmp_path, from_step=5, generation=SECOND)
    found = generations.requeue_statistics(tmp_path, SECOND)
    assert (found["requeues"], found["lost_steps"]) == (1, 2)
    assert found["effective_training_share"] > 0
    events = (tmp_path / "events.jsonl").read_text()
    assert '"requeued"' in events and '"lost_steps": 2' in events


def test_after_out_of_memory_settings_and_origins_show_the_new_micro_batch(tmp_path):
    first = resolved(batch_size="8")
    smaller = restart.reduced(first)
    numbers = (smaller.batching.micro_batch, smaller.batching.accumulation)
    assert numbers == (4, 2 * first.batching.accumulation)
    assert (smaller.settings.train.micro_batch, smaller.settings.train.accumulation) == numbers
    run_folder.rewrite_settings(Storage(tmp_path), smaller)
    assert "  micro_batch: 4" in (tmp_path / "settings.yaml").read_text()
    origins = json.loads((tmp_path / "origins.json").read_text())
    assert origins["train.micro_batch"]["value"] == 4
    assert origins["train.micro_batch"]["origin"] == "reduced after out of memory"
    assert origins["train.micro_batch"]["replaced"][0]["value"] == 8


LIMIT = 256 * 2**20


@pytest.fixture
def killed(tmp_path):
    """Runs tests.launcher.killed in a control group: its output, and the micro-batches it tried."""

    def start(*args):
        folder = tmp_path / "run"
        with limited(LIMIT) as prefix:
            done = subprocess.run(
                [*prefix, sys.executable, "-m", "tests.launcher.killed", folder, str(2 * LIMIT)]
                + [str(argument) for argument in args],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
        assert done.returncode == 0, done.stderr
        shown = done.stdout.splitlines() + done.stderr.splitlines()
        return shown, (folder / "attempts").read_text().split()

    return start


def test_a_rank_that_the_kernel_kills_restarts_with_half_the_micro_batch(killed, tmp_path):
    shown, attempts = killed(2)
    assert attempts == ["8", "4", "2"]
    assert shown[:2] == ["forks", "ended, 0"]
    assert [line for line in shown if line.startswith("restart")] == [
        f"restart with micro-batches of {size} from the beginning" for size in (4, 2)
    ]
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert events.count('"kind": "out_of_memory"') == 2
    assert "the kernel killed 1 process" in events
