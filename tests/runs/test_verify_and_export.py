"""Verify and export of a run by the command line."""

import pytest

from tests.launcher.saved_runs import contents
from tests.runs.conftest import REQUESTS, Program

RUN = "--model language:tiny --data mine.jsonl --out mine --engine ddp --nproc 2 --max-steps 4"
SETTINGS = (
    "save.every=2 log.every=1 train.preview=false train.global_batch=4 train.micro_batch=2 "
    "save.keep_best=0 engine.threads=1"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program in a folder with a run of two processes, `mine`."""
    program = Program(tmp_path_factory.mktemp("here"))
    (program.folder / "mine.jsonl").write_text(REQUESTS)
    done = program(*RUN.split(), *(f"--set={setting}" for setting in SETTINGS.split()))
    assert done.returncode == 0, done.stdout + done.stderr
    return program


@pytest.fixture
def trained(program):
    """The run folder, which nothing may change."""
    before = contents(program.folder / "mine")
    yield program.folder / "mine"
    assert contents(program.folder / "mine") == before


@pytest.mark.slow
def test_a_run_of_two_processes_is_verified_under_its_own_engine(program, trained):
    done = program("verify", "mine")
    assert done.returncode == 0, done.stdout + done.stderr
    first, replay = done.stdout.splitlines()
    assert first == "identical: 60 tensors, 2 steps"
    assert replay == "  replay   steps 2 to 4, ddp on 2 processes, bit by bit; 3 logged lines"


@pytest.mark.slow
def test_a_run_is_verified_within_rounding_under_another_engine(program, trained):
    pytest.importorskip("deepspeed")
    done = program("verify", "mine", "--engine", "zero3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "zero3 on 2 processes, within 0.0001 (moments 0.01)" in done.stdout
