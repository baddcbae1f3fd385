"""Jobs are followed to their end by the output of Slurm and the files of their runs."""

import io
import json

import pytest

from launcher.submit.follow import follow
from launcher.submit.jobs import SlurmJob, Submission, SubmittedRun
from tests.slurm.programs import programs_in_path
from training.callbacks.base import EvalResult
from training.train_plan import TrainPlan

RUNNING = "JobId=41 JobState=RUNNING Reason=None Restarts={} NodeList=node1\n"
BUDGET = TrainPlan(40, 10, 8, 8, 1, 1, "tokens")
TRAINED = {"kind": "train", "epoch": 0.5, "samples": 80, "tokens": 800, "loss": 2.5, "lr": 1e-3}
TRAINED |= {"grad_norm": 1.0, "step_time_s": 0.5, "data_time_s": 0.0, "samples_per_s": 16.0}
TRAINED |= {"tokens_per_s": 160.0, "device_memory_bytes": None, "host_memory_bytes": 2**30}


def ended(state, restarts=0, nodes="node1", job="41"):
    return 0, f"JobId={job} JobState={state} Restarts={restarts} NodeList={nodes}\n", ""


class Cluster:
    """A run folder and a job that changes between two polls."""

    def __init__(self, programs, folder):
        self.programs = programs
        self.folder = folder
        self.seconds = 0.0
        (folder / "slurm" / "log").mkdir(parents=True)

    def reply(self, *replies):
        self.programs.add("scontrol", *replies)

    def train(self, *steps, step_s=0.5):
        output = {**TRAINED, "step_time_s": step_s}
        self._append("metrics.jsonl", *({**output, "step": step} for step in steps))

    def event(self, kind, step, facts):
        self._append("events.jsonl", {"kind": kind, "step": step, "facts": facts})

    def outcome(self, text, generation=0):
        (self.folder / "slurm" / f"outcome.41.{generation}").write_text(f"{text}\n")

    def follow(self, *happens, runs=1):
        """The exit code and the output; one of `happens` is called per poll."""
        left = iter(happens)

        def sleep(seconds):
            self.seconds += seconds
            assert self.seconds < 300, stream.getvalue()
            next(left, lambda: None)()

        names = [("", None)] if runs == 1 else [(str(n), n) for n in range(runs)]
        followed = [SubmittedRun(self.folder, None, *name) for name in names]
        submission = Submission(self.folder, [SlurmJob(self.folder, "", followed)])
        stream = io.StringIO()
        code = follow(submission, ["41"], stream, sleep, lambda: self.seconds)
        return code, stream.getvalue()

    def _append(self, name, *lines):
        with (self.folder / name).open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    programs = programs_in_path(tmp_path / "bin", monkeypatch)
    return Cluster(programs, tmp_path / "run")


def test_the_files_of_a_run_are_printed_as_by_its_console(cluster):
    cluster.reply((0, RUNNING.format(0), ""))
    cluster.event("started", 0, vars(BUDGET))

    def step():
        cluster.train(10)
        evaluation = EvalResult(10, "val", {"val_loss": 2.0}, True, 0.1)
        cluster.event("evaluated", 10, vars(evaluation))
        cluster.event("saved", 10, {"folder": "step-00000010", "step": 10})
        cluster.event("signal", 10, {"names": ["SIGUSR1"], "saves": True})

    def end():
        cluster.event("stopped", 40, {"status": "completed", "steps": 40, "reason": ""})
        cluster.outcome("done 0")
        cluster.reply(ended("COMPLETED"))

    code, output = cluster.follow(step, end)
    assert code == 0
    assert output.splitlines() == [
        "run        40 steps",
        "job        41 running on node1",
        "step       10/40  loss   2.5000  lr 1.00e-03  norm   1.0000    160 tokens/s    1.0 GiB"
        "  ETA ≥ 15 s",
        "eval       10/40  val  val_loss 2.0000  (0.1 s)  ← best",
        "saved      10/40  checkpoints/step-00000010",
        "warning    SIGUSR1: saving and stopping after this step",
        "finished   40 steps",
        "job        41 completed",
    ]


def test_a_requeued_job_is_followed_and_repeated_steps_are_printed_again(cluster):
    cluster.reply((0, RUNNING.format(0), ""))
    cluster.train(10, 20)

    def requeue():
        cluster.reply((0, "JobId=41 JobState=PENDING Reason=BeginTime Restarts=1 NodeList=\n", ""))

    def again():
        cluster.reply((0, RUNNING.format(1), ""))
        first_lines = (cluster.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:1]
        (cluster.folder / "new").write_text("".join(first_lines))
        (cluster.folder / "new").replace(cluster.folder / "metrics.jsonl")
        cluster.train(20, 30, step_s=0.6)

    def end():
        cluster.outcome("again 75", 0)
        cluster.outcome("done 0", 1)
        cluster.reply(ended("COMPLETED", 1))

    code, output = cluster.follow(requeue, lambda: None, again, lambda: None, end)
    assert code == 0
    steps = [line.split("/")[0].split()[-1] for line in output.splitlines() if "step" in line]
    assert steps == ["10", "20", "20", "30"]
    assert "job        41 pending (BeginTime) requeued 1×" in output


def test_a_successor_job_is_followed(cluster):
    log = cluster.folder / "slurm" / "log" / "41.out"
    log.write_text("step\ngearshift: continues as job 57\n")
    cluster.outcome("again 75")
    cluster.reply(ended("COMPLETED"), ended("RUNNING", job="57"))

    def end():
        cluster.outcome("failed 1", 1)
        cluster.reply(ended("FAILED", job="57"))

    code, output = cluster.follow(*[lambda: None] * 3, end)
    assert code == 1
    assert "job        continues as job 57" in output
    assert output.splitlines()[-1].endswith(f"see {log.with_name('57.out')}")
    assert cluster.programs.calls("scontrol")[-1]["args"][-1] == "57"


@pytest.mark.parametrize(
    ("outcome", "reply", "code"),
    [
        ("invalid 2\nno such file", ended("FAILED"), 2),
        ("again 75", ended("CANCELLED"), 75),
        ("again 75", ended("FAILED", 1), 1),
        (None, ended("FAILED"), 1),
        (None, ended("CANCELLED", nodes="(null)"), 75),
        ("done 0", (1, "", "Invalid job id specified"), 0),
    ],
)
def test_the_exit_code_is_that_of_the_run(cluster, outcome, reply, code):
    if outcome is not None:
        cluster.outcome(outcome)
    cluster.reply(reply)
    cluster.programs.add("sacct", (1, "", "disabled"))
    assert cluster.follow()[0] == code


def test_an_unreachable_controller_is_retried_and_an_outcome_may_be_late(cluster):
    cluster.reply((1, "", "Unable to contact slurm controller"))
    back = [lambda: cluster.reply(ended("COMPLETED")), *[lambda: None] * 9]
    code, output = cluster.follow(*back, lambda: cluster.outcome("done 0"))
    assert code == 0
    assert "job        41: Unable to contact slurm controller" in output


def test_the_worst_run_of_an_array_gives_the_exit_code(cluster):
    (cluster.folder / "slurm" / "outcome.41_0.0").write_text("done 0\n")
    (cluster.folder / "slurm" / "outcome.41_1.0").write_text("failed 1\n")
    cluster.reply(ended("COMPLETED"), ended("FAILED"))
    code, output = cluster.follow(runs=2)
    assert code == 1
    assert output.startswith("0: job        41_0 completed\n1: job        41_1 failed\n")


def test_an_invalid_line_is_skipped(cluster):
    (cluster.folder / "metrics.jsonl").write_text('{"kind": "train"}\n[1]\nhalf')
    cluster.event("evaluated", 1, {"strange": 1})
    cluster.outcome("done 0")
    cluster.reply(ended("COMPLETED"))
    assert cluster.follow() == (0, "job        41 completed\n")
