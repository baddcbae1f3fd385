"""One run at a time per folder: the lock waits, names its holder, and ends with the process."""

import os
import signal
import socket
import subprocess
import sys
from io import StringIO

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.run_folder import lock
from gearshift.slurm.environment import Generation

HOLDER = """
import sys
from pathlib import Path
from gearshift.launcher.run_folder import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process, or its fork, that holds the lock of `tmp_path` until its stdin is closed."""
    started = []

    def start(program=HOLDER):
        command = [sys.executable, "-c", program, str(tmp_path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_folder_in_use_is_refused_by_the_name_of_its_holder(holder, tmp_path):
    process = holder()
    with pytest.raises(SettingsError) as refused, lock.hold(tmp_path, wait_s=0.2):
        pass
    [error] = refused.value.diagnostics
    assert f"in use by {process.pid}@{socket.gethostname()}" in error.message
    assert error.value == str(tmp_path) and "--out DIR" in error.hint


def test_a_run_that_ends_meanwhile_is_waited_for_and_reported_once(holder, tmp_path, monkeypatch):
    process = holder()

    class Console(StringIO):
        def write(self, text):
            process.stdin.close()  # the run ends once the wait is reported
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Console())
    with lock.hold(tmp_path):
        stderr = sys.stderr.getvalue()
    assert stderr == (f"{tmp_path} is in use by {process.pid}@{socket.gethostname()}; waiting\n")


def test_the_lock_of_a_killed_run_is_free(holder, tmp_path):
    holder().kill()
    for wait_s in (lock.WAIT_S, 0.0):  # and once more, after its release
        with lock.hold(tmp_path, wait_s):
            assert (tmp_path / lock.NAME).read_text().startswith(f"{os.getpid()}@")


def test_a_child_that_outlives_the_run_does_not_keep_the_lock(holder, tmp_path):
    forking = HOLDER.replace("print(", "child = __import__('os').fork()\n    child and print(")
    process = holder(forking)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock.hold(tmp_path, wait_s=0.5):
        pass


FIRST, SECOND, OTHER = Generation("12", 0), Generation("12", 1), Generation("13", 1)


@pytest.fixture
def lost_process(holder):
    """A process of the first generation of job 12 that holds the lock and cannot be reached."""
    program = HOLDER.replace("hold(Path(sys.argv[1]))", "hold(Path(sys.argv[1]), generation=FIRST)")
    return holder(
        f"from gearshift.slurm.environment import Generation\nFIRST = Generation('12', 0)\n{program}"
    )


def test_an_earlier_generation_of_the_job_is_not_waited_for(lost_process, tmp_path, capsys):
    with lock.hold(tmp_path, wait_s=0.2, generation=SECOND):
        assert (
            tmp_path / lock.NAME
        ).read_text() == f"{os.getpid()}@{socket.gethostname()} 12 1 0\n"
        with pytest.raises(SettingsError), lock.hold(tmp_path, wait_s=0.2):
            pass  # it is held by this run now, not by the lost process
    assert capsys.readouterr().err.count("waiting") == 1
    assert os.listdir(tmp_path) == [lock.NAME]


def test_another_job_is_refused_by_the_name_of_the_job_that_holds_it(lost_process, tmp_path):
    with pytest.raises(SettingsError) as refused, lock.hold(tmp_path, 0.2, generation=OTHER):
        pass
    holder = f"generation 0 of Slurm job 12, {lost_process.pid}@{socket.gethostname()}"
    assert str(refused.value).startswith(
        f"error: the run folder {tmp_path} is in use by {holder}\n"
    )
