"""Whole runs on a GPU: crossings between engines, real memory limits, and replays bit by bit."""

import shutil
from pathlib import Path

import pytest

from gearshift.engines.catalog import ENGINES
from tests.runs.conftest import REQUESTS
from tests.runs.crossing import Crossings, differences, drift
from tests.runs.test_crossing import cases, in_turn
from tests.runs.test_limits import events, losses, run

pytestmark = pytest.mark.gpu

# Kernels of a GPU add in another order under each engine, and some of them in any order.
ROUNDING = 1e-4
ON_GPU = ("--set", "device=cuda", "--set", "engine.nproc=1", "--set", "precision=fp32")


@pytest.fixture(scope="module")
def crossings(gpu_worlds, tmp_path_factory):
    return Crossings(gpu_worlds, tmp_path_factory.mktemp("runs"))


ALONE = [case for case in in_turn(*ENGINES) if (case[1], case[3]) == (1, 1)]


@cases(*ALONE)
def test_another_engine_resumes_as_if_it_had_taken_all_steps(
    crossings, source, before, target, after
):
    saved = crossings.source(source, before)
    crossed = crossings.cross(saved, target, after)
    assert differences(saved.saved, crossed.taken) == []
    assert drift(crossed.end, crossings.source(target, after).end) < ROUNDING


@pytest.fixture
def hungry(program):
    shutil.copy(Path(__file__).with_name("hungry.py"), program.folder)
    return program


def test_out_of_memory_halves_the_micro_batch_and_changes_no_loss(hungry):
    done = run(hungry, "run", *ON_GPU, hunger="gpu 200")

    assert done.returncode == 0, done.stderr
    (event,) = events(hungry, "run", "out_of_memory")
    assert "out of memory" in event["text"]
    assert "micro-batch 8 → 4, accumulation 4" in done.stdout
    assert run(hungry, "undisturbed", *ON_GPU).returncode == 0
    assert losses(hungry, "run") == pytest.approx(losses(hungry, "undisturbed"), rel=ROUNDING)


def test_a_deterministic_run_is_replayed_bit_by_bit(program):
    (program.folder / "mine.jsonl").write_text(REQUESTS)
    args = "--model language:tiny --data mine.jsonl --out mine --max-steps 4 --deterministic"
    settings = "save.every=2 log.every=1 train.preview=false train.micro_batch=4 save.keep_best=0"
    done = program(*args.split(), *ON_GPU, *(f"--set={setting}" for setting in settings.split()))
    assert done.returncode == 0, done.stdout + done.stderr
    replayed = program("verify", "mine")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert replayed.stdout.startswith("identical: ")
