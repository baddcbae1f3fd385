"""Python, packages and compiler: each check in a real bad situation."""

from __future__ import annotations

import sys

import pytest

from launcher.doctor.packages import (
    Packages,
    check_compiler,
    check_others,
    check_package,
    check_python,
)
from tests.launcher.doctor.installed import packages


@pytest.mark.parametrize(
    ("version", "status"),
    [("3.9.18", "failure"), ("3.10.0", "ok"), ("3.13.1", "ok"), ("3.14.0rc1", "failure")],
)
def test_python_is_in_the_required_range(tmp_path, version, status):
    found = check_python(version, packages(tmp_path))
    assert found.status == status
    assert (found.fix is not None) == (status == "failure")


def test_a_clone_that_is_not_installed_is_a_warning(tmp_path):
    found = check_python("3.12.0", Packages([str(tmp_path)]))
    assert found.status == "warning" and found.fix.startswith("pip install -e ")


def test_missing_and_old_packages_are_one_failure_with_one_line_to_type(tmp_path):
    found = check_others(packages(tmp_path / "a"))
    assert (found.status, found.fix) == ("failure", "pip install 'pyyaml>=6.0'")
    found = check_others(packages(tmp_path / "b", pyyaml="5.4"))
    assert found.status == "failure" and "5.4 is installed, >=6.0 is required" in found.found
    assert check_others(packages(tmp_path / "c", pyyaml="6.0.2")).status == "ok"


@pytest.mark.parametrize("version", ["2.5.1", "2.14.0"])
def test_torch_out_of_range_is_a_failure(tmp_path, version):
    found = check_package("torch", packages(tmp_path, torch=version))
    assert found.status == "failure" and f"{version} is installed" in found.found
    assert found.fix.startswith("pip install 'torch")


def test_torch_for_one_platform_is_in_range(tmp_path):
    assert check_package("torch", packages(tmp_path, torch="2.13.0+cpu")).status == "ok"


@pytest.mark.parametrize(
    ("name", "status"), [("torch", "failure"), ("deepspeed", "warning"), ("fairscale", "warning")]
)
def test_a_missing_package_names_what_cannot_run(tmp_path, name, status):
    found = check_package(name, packages(tmp_path))
    assert found.status == status
    assert found.found.startswith("not installed: ") and found.found.endswith(" run")
    assert found.fix.startswith("pip install ")


def test_a_package_that_cannot_be_imported_is_reported_with_its_error(tmp_path):
    error = "libcudart.so.12: cannot open shared object file"
    installed = packages(tmp_path, torch="2.13.0")
    found = check_package("torch", installed, lambda: error)
    assert found.status == "failure" and error in found.found
    assert found.fix.endswith(" --force-reinstall")


def test_this_installation_is_found():
    assert check_package("fairscale", Packages(sys.path)).status == "ok"


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_path_without_a_compiler_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_compiler()
    assert found.status == "warning" and "no C++ compiler" in found.found


def test_a_compiler_without_headers_is_a_warning(tmp_path, monkeypatch):
    program(tmp_path, "c++", "echo 'fatal error: vector: No such file or directory' >&2; exit 1")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_compiler()
    assert found.status == "warning" and "c++ compiles nothing: fatal error: vector" in found.found


def test_a_compiler_that_works_is_ok(tmp_path, monkeypatch):
    program(tmp_path, "mine", "exit 0")
    monkeypatch.setenv("CXX", str(tmp_path / "mine"))
    assert check_compiler().found == str(tmp_path / "mine")
