"""The losses of a commit are compared with those in a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import golden


def test_a_difference_names_the_run_the_step_and_both_losses():
    expected = {"abr ddp": [2.0, 1.0], "abr fsdp": [2.0, 1.0]}
    found = {"abr ddp": [2.0, 1.001], "abr fsdp": [2.0, 1.0], "abr local": [2.0]}
    missing = "abr local: 1 losses; the file has 0"
    assert golden.differences(found, expected, 0.01) == [missing]
    changed = "abr ddp: step 2: 1.001; the file has 1.0; largest difference 0.001"
    assert golden.differences(found, expected, 0.0) == [changed, missing]
    (line,) = golden.differences({"abr ddp": [2.0, float("nan")]}, expected, 0.01)
    assert line.startswith("abr ddp: step 2: nan; the file has 1.0")


@pytest.mark.slow
def test_a_second_run_has_the_losses_of_the_first_to_the_last_bit(tmp_path):
    path = tmp_path / "golden.json"

    def run(*more):
        line = [sys.executable, "-m", "benchmarks.golden", "--json", str(path), *more]
        line += ["--families", "language", "--engines", "local"]
        return subprocess.run(
            line, cwd=Path(golden.__file__).parents[1], text=True, capture_output=True
        )

    assert run("--write").stdout == f"wrote 1 runs to {path}\n"
    content = json.loads(path.read_text())
    content["losses"]["language local"][4] += 1e-6
    path.write_text(json.dumps(content))
    done = run()
    assert done.returncode == 1, done.stderr
    line, last = done.stdout.splitlines()
    assert line.startswith("language local: step 5: ")
    assert last == "1 of 1 runs differ; tolerance 0"
