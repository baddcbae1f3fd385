"""A signal ends every command within seconds: one line, its exit code, nothing half written."""

import os
import signal
import subprocess

import psutil
import pytest

from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.runs.conftest import Program, environment
from tests.waiting import until

STUCK = """
    def samples(self, split):
        reached("samples")
        return [(torch.full((2,), i / 48), i / 24) for i in range(24)]

    measured = measure

    def measure(self, model, batch):
        if not model.training:
            reached("evaluation")
        return self.measured(model, batch)

    def setup_without_data(self):
        reached("setup")

    def predict(self, model, path):
        from gearshift.models.base import Prediction
        yield Prediction("first", "", {".txt": b"complete"})
        reached("prediction")
        yield Prediction("second", "", {".txt": b"later"})


def reached(place):
    import hashlib, os
    from pathlib import Path
    if os.environ.get("STUCK") == place:
        Path("reached").write_text(str(os.getpid()))
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # a handler of Python never runs
"""
DATA = """
    class Data(BaseModel):
        path: str | None = None

    defaults = {"train.micro_batch": 4, "train.max_steps": 2, "report.enabled": False}

"""
MODEL = "stuck_task:Line"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "stuck_task.py").write_text(HEAD + LINE + DATA + BODY + STUCK)
    done = Program(folder)("--model", MODEL, "--out", "one")
    assert done.returncode == 0, done.stderr
    return folder


def files(folder):
    ignored = ("__pycache__", "torchinductor")
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    return {name for name in names if not any(part in name for part in ignored)}


def ended(folder, number, arguments, **variables):
    """Exit code, output and new files of a command that gets a signal once it is stuck.

    A Ctrl-C reaches the group, as that of a terminal does.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    before, reached = files(folder), folder / "reached"
    options = {"stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "start_new_session": True}
    variables = environment() | variables | {"TMPDIR": str(folder / "tmp")}
    program = Program(folder).start(*arguments, env=variables, **options)
    until(reached.exists, program)
    started = psutil.Process(program.pid).children(recursive=True)
    (os.killpg if number == signal.SIGINT else os.kill)(program.pid, number)
    text, _ = program.communicate()  # what is stuck would take an hour
    assert not psutil.wait_procs(started)[1], "a process is left"
    reached.unlink()
    return program.returncode, text, files(folder) - before


COMMANDS = {
    "plan": (signal.SIGINT, "samples", f"plan --model {MODEL}", set(), "nothing was written"),
    "run": (signal.SIGTERM, "samples", f"--model {MODEL} --out new", set(), "nothing was saved"),
    "predict": (signal.SIGTERM, "prediction", "predict one --input stuck_task.py --out found", {"found/first.txt"}, "1 complete file in found"),
    "evaluate": (signal.SIGINT, "evaluation", "evaluate one", set(), "nothing was written"),
}  # fmt: skip
"""The signal, where the command is stuck, the files that stay, and a part of the last line."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_in_a_library_ends_a_command(run, name):
    number, place, line, files_left, last = COMMANDS[name]
    code, text, new = ended(run, number, line.split(), STUCK=place)
    assert (code, new) == (130 if number == signal.SIGINT else 75, files_left)
    assert "Traceback" not in text and last in text.splitlines()[-1]
