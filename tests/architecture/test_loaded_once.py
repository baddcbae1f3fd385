"""No module of ours is loaded under two names, in any process of a run."""

import json
from pathlib import Path

import pytest

from scripts.structure import PACKAGES
from tests import extended

AT_END = """
import atexit, json, os, sys
from pathlib import Path


def write():
    modules = {{name: str(getattr(m, "__file__", None)) for name, m in list(sys.modules.items())}}
    line = " ".join(sys.orig_argv[1:])
    Path({folder!r}, f"loaded-{{os.getpid()}}").write_text(json.dumps([line, modules]))


def leave(code, leave=os._exit):
    write()
    leave(code)


atexit.register(write)
os._exit = leave  # so a rank ends
"""


@pytest.mark.slow
def test_no_process_of_a_run_loads_a_file_twice(tmp_path):
    launch = extended.command(tmp_path, AT_END.format(folder=str(tmp_path)))
    launch(
        "--model",
        "language:tiny",
        "--engine",
        "ddp",
        "--nproc",
        "2",
        "--max-steps",
        "2",
        "--out",
        "run",
    )
    seen = [json.loads(path.read_text()) for path in tmp_path.glob("loaded-*")]
    assert {"launcher", "gearshift.launcher.run.rank"} <= {line.split()[1] for line, _ in seen}
    for line, modules in seen:
        bare = [name for name in modules if name.partition(".")[0] in PACKAGES]
        assert bare == [], line
        files = [
            Path(file).resolve() for name, file in modules.items() if name.startswith("gearshift")
        ]
        assert len(files) == len(set(files)), line
