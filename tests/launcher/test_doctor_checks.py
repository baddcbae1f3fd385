"""Each check in a real bad situation, and beside it in a good one."""

import sys
from dataclasses import replace

import pytest

from gearshift.launcher.commands import doctor as checks
from tests.control_group import limited
from tests.launcher.given import LAPTOP, ONE_GPU, SERVER, python

MIB = 2**20
NEEDS = ("torch>=2.6,<2.14", "wandb>=0.19", "pyyaml>=6.0", 'tomli>=9; python_version < "3"')


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install only this program and `versions`; nothing without them."""
    library = [folder for folder in sys.path if not folder.endswith("-packages")]
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *library])

    def install(**versions):
        for name, version in {"gearshift": "0.1.0", **versions}.items():
            info = tmp_path / "site" / f"{name}-{version}.dist-info"
            info.mkdir(parents=True, exist_ok=True)
            head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
            if name == "gearshift":
                head += ["Requires-Python: >=3.10,<3.14", *(f"Requires-Dist: {n}" for n in NEEDS)]
            (info / "METADATA").write_text("\n".join(head) + "\n")

    return install


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing but what `programs` writes."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(*names, text="exit 0"):
        for name in names:
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)

    return write


def test_python_is_in_the_required_range_and_the_program_installed(installed):
    clone = checks.check_python("3.12.0")
    assert clone.status == "warning" and clone.fix.startswith("pip install -e ")
    installed()
    versions = ("3.9.18", "3.10.0", "3.13.1", "3.14.0rc1")
    statuses = [checks.check_python(version).status for version in versions]
    assert statuses == ["failure", "ok", "ok", "failure"]


def test_missing_and_old_packages_are_one_check_with_one_line_to_type(installed):
    installed(wandb="0.10")
    names = ("torch", "deepspeed", "pyyaml", "wandb")
    check = checks.check_packages("packages", *names, status="failure")
    lines = "pip install 'torch<2.14,>=2.6' deepspeed 'pyyaml>=6.0' 'wandb>=0.19'"
    assert check[1::2] == ("failure", lines)
    assert checks.check_torch().status == "failure"
    installed(pyyaml="6.1", torch="2.16.0")
    assert checks.check_packages("", "pyyaml").status == "ok"
    assert checks.check_packages("", "deepspeed").status == "warning"
    assert checks.check_torch().fix == "pip install 'torch<2.14,>=2.6'"


def test_a_slurm_that_lacks_a_command_or_does_not_answer_is_a_warning(programs):
    assert checks.check_slurm().status == "ok"
    programs("sbatch", "sinfo", "srun", "scontrol")
    assert checks.check_slurm()[1:3] == ("warning", "scancel not on PATH")
    programs(*checks.SLURM, text="echo gpu; echo cpu; echo gpu")
    assert checks.check_slurm()[1:3] == ("ok", "partitions cpu, gpu")
    programs("sinfo", text="echo 'sinfo: Unable to contact' >&2; exit 1")
    assert checks.check_slurm().status == "warning"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("size=1m", "failure"),
        ("size=1g", "warning"),
        ("size=6g", "ok"),
        ("size=6g,ro", "failure"),
    ],
)
def test_a_disk_that_is_small_or_cannot_be_written_to_is_reported(disk, options, status):
    folder = disk(options)
    assert checks.check_disk("", folder, 5 * 2**30, 200 * MIB, "").status == status
    assert checks.check_disk("", folder / "none", 0, 0, "").status == "failure"


MEMORY = """
from gearshift.launcher.commands import doctor as checks
from tests.launcher.given import LAPTOP
print(checks.check_memory(LAPTOP).status)
"""


def test_a_real_control_group_is_read():
    with limited(1000 * MIB) as prefix:
        done = python("-c", MEMORY, prefix=prefix)
    assert done.stdout == "warning\n", done.stderr


def test_gpus_that_torch_cannot_use_alone_or_together_are_reported():
    two = replace(SERVER, gpus=2)
    for names, here, boards, has_nccl, status in (
        ((), LAPTOP, 0, False, "ok"),
        (("A",), ONE_GPU, 1, False, "ok"),
        (("A", "A"), two, 2, True, "ok"),
        (("A", "A"), two, 2, False, "warning"),
        ((), LAPTOP, 2, True, "warning"),  # hidden
        ((), replace(LAPTOP, unused="the driver is not loaded"), 2, False, "warning"),
        ((), two, 2, True, "failure"),
    ):
        found = checks.check_gpu(names, here, boards, has_nccl)
        assert (found.status, found.hint is None) == (status, status == "ok"), found
