"""The command `doctor`: its output and its exit codes."""

import json
import os
import sys
from pathlib import Path

import pytest

from gearshift.engines.catalog import ENGINES
from tests.launcher.given import SOURCE, python

BOTH = """
from gearshift.launcher.__main__ import main
code = main(["doctor"])
print()
main(["doctor", "--json"])
raise SystemExit(code)
"""


def test_without_torch_it_says_so_and_fails_and_json_has_all_checks_and_engines(tmp_path):
    site, here = tmp_path / "site", tmp_path / "here"
    site.mkdir()
    here.mkdir()
    for folder in (Path(name) for name in sys.path if name.endswith("site-packages")):
        for path in folder.iterdir():  # all other packages
            if not path.name.startswith(("torch", "deepspeed", "__editable__")):
                (site / path.name).symlink_to(path)
    # -S: without the folder of packages that this Python has.
    path = {"PYTHONPATH": os.pathsep.join((str(SOURCE), str(site)))}
    done = python("-S", "-c", BOTH, folder=here, env=path)
    assert done.returncode == 1 and not done.stderr, done.stderr
    text, _, rest = done.stdout.partition("\n\n{")
    lines = text.splitlines()
    assert any(line.startswith("failure  torch ") for line in lines)
    assert any(line.strip().startswith("fix: pip install 'torch") for line in lines)
    assert len([line for line in lines if "cannot run here: " in line]) == len(ENGINES)

    found, _ = json.JSONDecoder().raw_decode("{" + rest)
    checks = {check["name"]: check for check in found["checks"]}
    assert set(checks) == {
        *("python", "packages", "compiler", "memory", "/dev/shm", "disk space"),
        *("slurm", "wandb", "torch"),
    }
    assert all(
        set(check) == {"name", "status", "found", "fix", "hint"} for check in checks.values()
    )
    assert all(
        check["fix"] or check["hint"] for check in checks.values() if check["status"] != "ok"
    )
    runs_here = {name: engine["runs_here"] for name, engine in found["engines"].items()}
    assert runs_here == dict.fromkeys(ENGINES, False)
    assert not list(here.iterdir())


@pytest.mark.slow
def test_with_torch_every_package_and_every_engine_is_shown(tmp_path):
    done = python("-m", "launcher", "doctor", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    names = [check["name"] for check in found["checks"]]
    assert names[-4:] == ["torch", "gpu", "deepspeed", "fairscale"]
    failed = [check for check in found["checks"] if check["status"] == "failure"]
    assert done.returncode == bool(failed)
    assert all(engine["runs_here"] for engine in found["engines"].values())
    assert not list(tmp_path.iterdir())
