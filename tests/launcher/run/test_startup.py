"""Signals while a run of a job starts."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from tests.launcher import custom_tasks
from tests.runs.conftest import REQUESTS, environment

TEXT = ["--model", "language:tiny", "--data", "mine.jsonl"]
ARGS = ["--out", "mine", "--epochs", "1000", "--set", "log.every=1", "--set", "save.every=5"]
ARGS += ["--set", "train.preview=false"]
JOB = {"GEARSHIFT_JOB": "12", "GEARSHIFT_GENERATION": "0"}
BLOCKED = {signal.SIGUSR1, signal.SIGTERM}


@contextmanager
def starting(folder, *args, trains=TEXT, **variables):
    """A job's run, as the job script starts it; each import is a line on its stderr."""
    (folder / "mine.jsonl").write_text(REQUESTS)
    (folder / "mine" / "slurm").mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "launcher", *trains, *ARGS, *args],
        cwd=folder,
        env={**environment(), **JOB, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED),
    )
    watch = threading.Timer(120, process.kill)
    watch.start()
    try:
        yield process
    finally:
        watch.cancel()
        process.kill()
        process.communicate()


def outcome(folder):
    path = folder / "mine" / "slurm" / "outcome.12.0"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    ("number", "imports"),
    [
        (signal.SIGTERM, 0),
        (signal.SIGUSR1, 40),
        (signal.SIGHUP, 700),
        pytest.param(signal.SIGTERM, 1200, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("hangups")
def test_a_signal_during_imports_is_handled(tmp_path, number, imports):
    with starting(tmp_path) as process:
        for _ in range(imports):
            process.stderr.readline()
        process.send_signal(number)
        process.communicate()
    assert outcome(tmp_path)[0] == "again 75"
    assert process.returncode in (75, 0)  # 0: it was training already, and has saved
    assert process.returncode == 75 or (tmp_path / "mine" / "last").exists()


def test_invalid_arguments_are_reported_to_the_job_script(tmp_path):
    with starting(tmp_path, "--lr", "fast") as process:
        process.communicate()
    recorded = outcome(tmp_path)
    assert (process.returncode, recorded[0]) == (2, "invalid 2")
    assert "fast" in recorded[1]
    assert os.listdir(tmp_path / "mine") == ["slurm"]


LONG_IMPORT = """\
import os
import sys
import threading

class Long:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch" and os.path.exists("mine"):
            print("importing", flush=True)
            threading.Event().wait()

sys.meta_path.insert(0, Long)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_during_a_long_import_leaves_no_run_folder(tmp_path, number, code):
    (tmp_path / "sitecustomize.py").write_text(LONG_IMPORT)
    variables = environment()
    variables["PYTHONPATH"] = f"{tmp_path}:{variables['PYTHONPATH']}"
    command = [sys.executable, "-m", "launcher", *TEXT[:2], "--out", "mine"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, **streams) as process:
        while "importing" not in (line := process.stdout.readline()):
            assert line, process.communicate()
        process.send_signal(number)
        process.communicate()
    assert (process.returncode, (tmp_path / "mine").exists()) == (code, False)


LOST_PEER = f"""\
import os
import signal

{custom_tasks.HEAD}
from gearshift.training.data.loader import Batches

{custom_tasks.LINE}
{custom_tasks.BODY}

class Lost(Line):
    steps = 0

    def measure(self, model, batch):
        self.steps += 1
        if self.steps == 9:
            Batches.close = close
            raise RuntimeError("Connection reset by peer")
        return super().measure(model, batch)

def close(self):
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_a_rank_terminated_after_a_lost_peer_reports_a_crash(tmp_path):
    """The signals of srun then reach a run that has ended, not one that is starting."""
    module = custom_tasks.write(tmp_path, LOST_PEER, "lost")
    with starting(tmp_path, trains=["--model", f"{module}:Lost"]) as process:
        recorded = process.communicate()[1]
    assert (process.returncode, outcome(tmp_path)) == (1, [])
    assert "run again" not in recorded
