"""The command `doctor`: its output, its exit codes, and each check on a healthy machine."""

import json
import os
import platform
import resource
import shutil
import sys
import time
from pathlib import Path

import pytest

from engines.catalog import ENGINES
from launcher.commands import doctor
from launcher.doctor import gpu, packages, services, system
from launcher.doctor.packages import Packages
from slurm import queue
from tests.launcher.given import LAPTOP, ROOT, python

BOTH = """
from launcher.__main__ import main
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
    path = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
    done = python("-S", "-c", BOTH, folder=here, env=path)
    assert done.returncode == 1 and not done.stderr, done.stderr
    text, _, rest = done.stdout.partition("\n\n{")
    lines = text.splitlines()
    assert "failure  torch         not installed: no engine can run" in lines
    assert any(line.strip().startswith("fix: pip install 'torch") for line in lines)
    cannot = [line for line in lines if "cannot run here: torch" in line]
    assert len(cannot) == len(ENGINES) and all("not installed" in line for line in cannot)

    found, _ = json.JSONDecoder().raw_decode("{" + rest)
    checks = {check["name"]: check for check in found["checks"]}
    assert set(checks) == {
        *("python", "packages", "compiler", "memory", "swap", "/dev/shm", "disk space"),
        *("open files", "locked memory", "clock", "slurm", "wandb", "torch"),
    }
    assert all(set(check) == {"name", "status", "found", "fix"} for check in checks.values())
    assert all(check["fix"] for check in checks.values() if check["status"] != "ok")
    assert list(found["engines"]) == list(ENGINES)
    assert not any(engine["runs_here"] for engine in found["engines"].values())
    assert not list(here.iterdir())


@pytest.mark.slow
def test_with_torch_every_package_and_every_engine_is_shown(tmp_path):
    done = python("-m", "launcher", "doctor", "--json", folder=tmp_path)
    found = json.loads(done.stdout)
    names = [check["name"] for check in found["checks"]]
    assert names[-6:] == ["torch", "gpu", "driver", "nccl", "deepspeed", "fairscale"]
    failed = [check for check in found["checks"] if check["status"] == "failure"]
    assert done.returncode == bool(failed)
    assert all(engine["runs_here"] for engine in found["engines"].values())
    assert not list(tmp_path.iterdir())


GIB = 2**30
HERE = Packages(sys.path)
H200 = gpu.Gpus(1, 0, None, "570.86.15", "CUDA 12.8", ["NVIDIA H200"], "2.27")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder in which a check finds what a healthy machine has."""
    (tmp_path / "membership").write_text("0::/\n")
    numbers = {"memory.max": 8 * GIB, "memory.current": GIB, "memory.swap.max": GIB}
    for name, number in {**numbers, "memory.swap.current": 0}.items():
        (tmp_path / name).write_text(f"{number}\n")
    for name in queue.COMMANDS:
        (tmp_path / name).write_text("#!/bin/sh\necho gpu\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


CHECKS = {
    "python": lambda _: packages.check_python(platform.python_version(), HERE),
    "packages": lambda _: packages.check_others(HERE),
    "compiler": lambda _: packages.check_compiler(),
    "memory": lambda folder: system.check_memory(LAPTOP, folder, folder / "membership"),
    "swap": lambda folder: system.check_swap(folder, folder / "membership"),
    "/dev/shm": system.check_shared_memory,
    "disk space": system.check_disk_space,
    "open files": lambda _: system.check_open_files(),
    "locked memory": lambda folder: system.check_locked_memory(folder / "none"),
    "clock": lambda folder: system.check_clock(time.time() + 60, folder.iterdir()),
    "slurm": lambda _: services.check_slurm(),
    "wandb": lambda home: services.check_wandb(HERE, {"WANDB_API_KEY": 40 * "a"}, home),
    "torch": lambda _: packages.check_package("torch", HERE),
    "gpu": lambda _: gpu.check_gpu(H200),
    "driver": lambda _: gpu.check_driver(H200),
    "nccl": lambda _: gpu.check_nccl(H200),
}


def test_a_healthy_machine_is_told_nothing_by_any_check(machine, monkeypatch):
    names = {each.name for each in doctor._checks(HERE)}
    assert names == {*CHECKS, "deepspeed", "fairscale"}
    usage = shutil.disk_usage("/")._replace(total=200 * GIB, free=100 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    if not shutil.which("c++"):
        monkeypatch.setenv("CXX", "true")  # stands for one that works
    for name, check in CHECKS.items():
        found = check(machine)
        assert (found.name, found.status, found.fix) == (name, "ok", None), found.text
