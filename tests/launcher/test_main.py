"""The process of a command line."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROKEN_OFF = """
import launcher.__main__ as program


def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        print("printed", end="")
        return 130


program.main = main
if __name__ == "__main__":
    program.program()
"""


def test_ctrl_c_in_generated_code_exits_with_130(tmp_path):
    (tmp_path / "broken_off.py").write_text(BROKEN_OFF)
    done = subprocess.run(
        [sys.executable, "-m", "broken_off"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "printed", "")
