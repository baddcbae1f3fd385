"""Functions in a child process: results, failures, and time limits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from launcher.base import child
from launcher.base.environment import ROOT

PROGRAM = """
import json, os, sys, time
from launcher.base import child

def echo():
    sys.settings = "changed"
    print("not shown")
    return {"pid": os.getpid(), "long": "x" * 200_000}

def fail():
    raise ValueError("not shown")

def leave():
    os.kill(os.getpid(), 9)

found = child.call(echo, 20)
assert found["pid"] != os.getpid() and len(found["long"]) == 200_000
assert not hasattr(sys, "settings")
begin = time.monotonic()
print(json.dumps([child.call(fail, 20), child.call(leave, 20), child.call(lambda: time.sleep(60), 0.2)]))
assert time.monotonic() - begin < 15
try:
    os.waitpid(-1, os.WNOHANG)
    print("a child is left")
except ChildProcessError:
    pass
"""


def test_results_come_from_a_process_of_their_own():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [None, None, None]


@pytest.mark.parametrize("value", [None, 1, {"a": [1.5, "x"]}])
def test_a_process_with_torch_calls_the_function_itself(value):
    import torch  # noqa: F401 - with its threads, a fork would be unsafe

    assert child.call(lambda: value, 0.0) == value
