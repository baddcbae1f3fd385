"""A write that fails ends a run in one sentence, and the run resumes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.conftest import ROOT, environment

pytestmark = pytest.mark.slow
PARTS = 20
"""Each fifth is tested: all take half an hour, by `python -m tests.runs.failed_writes FOLDER 0 1`."""
FILES = {"result.json", "report.html", "split.json", "model_facts.json", "last", "best", "log.txt"}
FILES |= {"settings.yaml", "origins.json", "metrics.jsonl", "events.jsonl", "checkpoints"}


@pytest.fixture
def library(tmp_path):
    """The library that lets a write fail."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs a C compiler on Linux")
    path = tmp_path / "failed_writes.so"
    source = Path(__file__).with_name("failed_writes.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", path, source, "-ldl"], check=True)
    return path


@pytest.mark.parametrize("part", range(0, PARTS, 5))
def test_each_kind_of_write_that_fails_once_is_one_sentence_and_the_run_resumes(
    library, tmp_path, part
):
    folder = tmp_path / "work"
    (folder / "runs").mkdir(parents=True)
    variables = {
        **environment(),
        "LD_PRELOAD": str(library),
        "FAULT_ROOT": str(folder / "runs"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))),
    }
    command = [sys.executable, "-m", "tests.runs.failed_writes", str(folder), str(part), str(PARTS)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=ROOT)
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert done.returncode == 0 and len(rows) > 120 // PARTS, done.stderr
    for row in rows:
        call = row["call"]
        assert row["has_failed"], call
        assert "Traceback" not in row["output"] + row["output_resumed"], row
        # 2: the folder of the user's choice cannot be written, and nothing is left.
        assert row["code"] in (0, 1) or (row["code"] == 2 and not row["was_left"]), row
        if row["code"]:
            assert "error: " in row["output"], row
        assert row["resumed"] == 0 and set(row["files"]) >= FILES, row
        assert not [name for name in row["files"] if name.endswith((".new", ".part"))], row
