"""Python, packages and compiler: each check in a real bad situation."""

import sys

from launcher.doctor.packages import (
    Packages,
    check_compiler,
    check_others,
    check_package,
    check_python,
)
from tests.launcher.doctor.installed import packages


def test_python_is_in_the_required_range_and_the_program_installed(tmp_path):
    here = packages(tmp_path / "site")
    for version, status in (
        ("3.9.18", "failure"),
        ("3.10.0", "ok"),
        ("3.13.1", "ok"),
        ("3.14.0rc1", "failure"),
    ):
        found = check_python(version, here)
        assert (found.status, found.fix is not None) == (status, status == "failure"), version
    found = check_python("3.12.0", Packages([str(tmp_path)]))  # a clone
    assert found.status == "warning" and found.fix.startswith("pip install -e ")


def test_missing_and_old_packages_are_one_failure_with_one_line_to_type(tmp_path):
    found = check_others(packages(tmp_path / "a"))
    assert (found.status, found.fix) == ("failure", "pip install 'pyyaml>=6.0'")
    found = check_others(packages(tmp_path / "b", pyyaml="5.4"))
    assert found.status == "failure" and "5.4 is installed, >=6.0 is required" in found.found
    assert check_others(packages(tmp_path / "c", pyyaml="6.0.2")).status == "ok"


def test_torch_out_of_range_or_that_cannot_be_imported_is_a_failure(tmp_path):
    for version in ("2.5.1", "2.16.0"):
        found = check_package("torch", packages(tmp_path / version, torch=version))
        assert found.status == "failure" and f"{version} is installed" in found.found
        assert found.fix.startswith("pip install 'torch")
    installed = packages(tmp_path / "cpu", torch="2.13.0+cpu")
    assert check_package("torch", installed).status == "ok"
    error = "libcudart.so.12: cannot open shared object file"
    found = check_package("torch", installed, lambda: error)
    assert found.status == "failure" and error in found.found
    assert found.fix.endswith(" --force-reinstall")
    assert check_package("fairscale", Packages(sys.path)).status == "ok"


def test_a_compiler_that_is_missing_or_lacks_headers_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = check_compiler()
    assert found.status == "warning" and "no C++ compiler" in found.found
    compiler = tmp_path / "c++"
    fails = "echo 'fatal error: vector: No such file or directory' >&2; exit 1"
    compiler.write_text(f"#!/bin/sh\n{fails}\n")
    compiler.chmod(0o755)
    found = check_compiler()
    assert found.status == "warning" and "c++ compiles nothing: fatal error: vector" in found.found
    compiler.write_text("#!/bin/sh\n")
    monkeypatch.setenv("CXX", str(compiler))
    assert check_compiler().found == str(compiler)
