"""A login node's folder, from which a user submits jobs, and the jobs."""

import json
import random
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.slurm.cluster.cluster import Cluster
from tests.slurm.cluster.processes import wait_until

CLONE = Path(__file__).parents[2]
TEXT = "the cat sat on a mat and saw how seven ships came sailing home"

SHORT = {
    "device": "cpu",
    "data.seq_len": "32",
    "train.epochs": "1000",  # the number of steps ends it
    "log.every": "1",
    "save.every": "100",
    "eval.every": "100",
    # Rounding in another world grows with the update of a step; 1e-6 must hold for hundreds.
    "optim.lr": "1e-5",
    # A cosine without restarts: that of `fast` would end within these steps.
    "schedule.name": "cosine",
}
"""A training of about 15 ms a step with two ranks on two cores: long enough to interrupt."""


@dataclass(frozen=True)
class Job:
    """A Slurm job, with the run folder and the log of its arguments."""

    cluster: Cluster
    id: str
    folder: Path
    log_file: Path

    @property
    def facts(self):
        """The controller's record of it, by Slurm's names: JobState, Restarts, ExitCode, …"""
        output = self.cluster.try_command("scontrol", "show", "job", "-o", self.id)
        output = re.sub(r" Command=.*? WorkDir=", " WorkDir=", output)
        return dict(field.split("=", 1) for field in output.split() if "=" in field)

    @property
    def state(self):
        return self.facts.get("JobState", "")

    @property
    def log(self):
        """The log of all its generations; empty before the first."""
        return read(self.log_file)

    @property
    def output(self):
        """Its log without the lines of single steps."""
        return re.sub(r"(?m)^step .*\n", "", self.log)

    @property
    def steps(self):
        """The steps of its metrics, in the order of their lines."""
        return [line["step"] for line in self.lines("train")]

    @property
    def losses(self):
        """The loss of each step."""
        return {line["step"]: line["loss"] for line in self.lines("train")}

    @property
    def result(self):
        """Its result.json."""
        return json.loads(read(self.folder / "result.json"))

    def lines(self, kind):
        """The complete lines of that kind in metrics.jsonl, without one that is being written."""
        text = read(self.folder / "metrics.jsonl")
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [line for line in lines if line["kind"] == kind]

    def wait(self, *states):
        """Wait until the job has ended, in one of these states."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        self.until(lambda: self.state in (*states, *ended))
        assert self.state in states, f"job {self.id} is {self.state}\n{self.output}"

    def wait_for_step(self, step):
        """Wait until metrics.jsonl contains that step."""
        self.until(lambda: max(self.steps, default=0) >= step or self.state == "FAILED")
        assert max(self.steps, default=0) >= step, f"job {self.id} failed\n{self.output}"

    def wait_for_restart(self):
        """Wait until it was requeued."""
        self.until(lambda: int(self.facts.get("Restarts", 0)) >= 1)

    def wait_for_line(self, text):
        """Wait until its log contains `text`."""
        self.until(lambda: text in self.log)

    def ranks(self):
        """The running processes of its ranks, of any generation, in the order of ranks.

        Without the forks of a rank, such as the one that plans.
        """
        found, parents = {}, {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name().startswith("python") and "launcher" in process.cmdline():
                    mine = process.environ()
                    if (mine.get("SLURM_CONF"), mine.get("GEARSHIFT_JOB")) == (
                        f"{self.cluster.folder}/slurm.conf",
                        self.id,
                    ):
                        parents[process.pid] = process.ppid()
                        found[int(mine["SLURM_PROCID"]), process.pid] = process
        return [found[key] for key in sorted(found) if parents[key[1]] not in parents]

    def signal(self, name="USR1"):
        """Send the batch shell the signal that Slurm sends ahead of the limit."""
        self.cluster.command("scancel", "--batch", f"--signal={name}", self.id)

    def cancel(self):
        self.cluster.command("scancel", self.id)

    def until(self, condition):
        """Wait until a condition holds."""
        assert wait_until(condition, seconds=200), f"{self.facts}\n{self.output}"


@dataclass(frozen=True)
class Login:
    """A folder with a clone's slurm/, some text as training data, and a cluster for jobs."""

    cluster: Cluster
    folder: Path

    def sbatch(self, name, run, *args, options=(), steps=300, settings=None, environment=None):
        """Submit the job file NAME for a short training of text into the folder `run`."""
        training = [*self.training(steps, settings or {}), *args]
        return self.submit(name, run, *training, options=options, environment=environment)

    def submit(self, name, run, *args, options=(), environment=None):
        """Run `sbatch OPTIONS slurm/NAME.sbatch --out RUN ARGS`."""
        script = [f"slurm/{name}.sbatch", "--out", run, *args]
        output = self.type("sbatch", "--parsable", *options, *script, environment=environment)
        number = output.partition(";")[0]
        return self.job(number, run, f"gearshift-{name}-{number}.out")

    def job(self, number, run, log):
        """A job by its id, with its run folder and log in this folder."""
        return Job(self.cluster, number, self.folder / run, self.folder / log)

    def type(self, *args, environment=None):
        """The output of a command here, in the environment of a user with a clone."""
        mine = {"GEARSHIFT_PYTHON": sys.executable, "PYTHONPATH": str(CLONE / "src")}
        return self.cluster.command(*args, folder=self.folder, **mine | (environment or {}))

    def training(self, steps, settings):
        """The arguments of a short training."""
        yield from ("--model", "language:tiny", "--data", "text.txt", "--max-steps", str(steps))
        for key, value in (SHORT | settings).items():
            yield from ("--set", f"{key}={value}")


def make_login(cluster, folder):
    """A login node's folder, created."""
    (folder / "slurm").symlink_to(CLONE / "slurm")
    chance = random.Random(0)
    lines = (" ".join(chance.choices(TEXT.split(), k=9)) for _ in range(1000))
    (folder / "text.txt").write_text(".\n".join(lines), encoding="utf-8")
    return Login(cluster, folder)


def read(path):
    """The text of a file, which may not exist yet."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
