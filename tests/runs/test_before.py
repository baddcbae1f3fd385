"""A run of the time when modules had other names still resumes, evaluates and verifies.

It was trained by `python -m launcher --model event_seg:tiny --set data.fraction=0.1 --engine local
--set device=cpu --max-steps 4 --set train.preview=false --set optim.name=adafactor --set save.every=2
--set eval.every=4 --batch-size 2 --set train.global_batch=2`.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.runs.conftest import result

BEFORE = Path(__file__).with_name("before")


@pytest.fixture
def run(program):
    """The folder of the run, which a test may change."""
    return Path(shutil.copytree(BEFORE, program.folder / "before", symlinks=True))


@pytest.mark.slow
def test_a_run_from_before_verifies_evaluates_and_resumes(program, run):
    best = result(run)["best"]["value"]
    verified = json.loads(program("verify", "before", "--json").stdout)
    assert (verified["from_step"], verified["to_step"], verified["error"]) == (2, 4, None)
    first = verified["first_difference"]  # another processor rounds in another way
    assert first is None or first["replay"] == pytest.approx(first["run"], rel=1e-3)
    scores = json.loads(program("evaluate", "before", "--split", "val", "--json").stdout)["metrics"]
    assert scores["val_iou"] == pytest.approx(best, abs=1e-3)
    assert program("resume", "before", "--max-steps", "6", "--reset", "schedule").returncode == 0
    assert result(run)["steps"] == 6
