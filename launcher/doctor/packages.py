"""Checks of Python and of the packages that Gearshift requires."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, distributions
from itertools import chain

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from engines.catalog import ENGINES
from launcher.base import environment
from launcher.doctor.result import Check, failure, ok, warning

OWN = "gearshift"
SHOWN = {
    "torch": "no engine can run",
    **{
        package: f"{', '.join(e.name for e in ENGINES.values() if package in e.needs)} cannot run"
        for package in sorted(set(chain(*(entry.needs for entry in ENGINES.values()))))
    },
    "wandb": "--track wandb cannot run",
}
"""Packages with a check of their own: what is impossible without them."""
_COMPILE_S = 60.0
_PROGRAM = "#include <vector>\nint main() { return std::vector<int>{0}[0]; }\n"


@dataclass(frozen=True)
class Packages:
    """The packages on a search path; None of them is imported."""

    path: Sequence[str]
    """Folders, as in sys.path."""

    def find(self, name: str) -> Distribution | None:
        """The installed package `name`."""
        return next(iter(distributions(name=name, path=list(self.path))), None)

    @cached_property
    def required(self) -> Mapping[str, Requirement]:
        """What this program requires here, by name; empty: it is not installed."""
        distribution = self.find(OWN)
        lines = [] if distribution is None else distribution.requires or []
        each = {wanted.name: wanted for wanted in map(Requirement, lines)}
        return {n: r for n, r in each.items() if not r.marker or r.marker.evaluate({"extra": ""})}

    def lacks(self, name: str) -> str | None:
        """`not installed`, or the version out of range; None: neither."""
        if (distribution := self.find(name)) is None:
            return "not installed"
        wanted, version = self.required.get(name), distribution.version
        if wanted is None or wanted.specifier.contains(version, prereleases=True):
            return None
        return f"{version} is installed, {wanted.specifier} is required"

    def install(self, *names: str) -> str:
        """The command that installs packages in a valid version."""
        wanted = {name: self.required.get(name) for name in names}
        words = [name if r is None else f"{name}{r.specifier}" for name, r in wanted.items()]
        return shlex.join(["pip", "install", *words])


def check_python(version: str, packages: Packages) -> Check:
    """Whether this version of Python is supported."""
    distribution = packages.find(OWN)
    if distribution is None:
        return warning(
            "python",
            f"{version}; {OWN} is not installed: the versions that it requires are unknown",
            f"pip install -e {shlex.quote(str(environment.ROOT))}",
        )
    allowed = distribution.metadata["Requires-Python"]
    if not SpecifierSet(allowed).contains(version, prereleases=True):
        fix = f"create a virtual environment with a Python {allowed}"
        return failure("python", f"{version}; {allowed} is required", fix)
    return ok("python", f"{version} ({allowed})")


def check_others(packages: Packages) -> Check:
    """The required packages without a check of their own."""
    names = [name for name in packages.required if name not in SHOWN]
    lacks = {name: reason for name in names if (reason := packages.lacks(name)) is not None}
    if lacks:
        text = "; ".join(f"{name}: {reason}" for name, reason in lacks.items())
        return failure("packages", text, packages.install(*lacks))
    return ok("packages", f"{len(names)} required packages in valid versions")


def check_package(
    name: str, packages: Packages, import_error: Callable[[], str | None] | None = None
) -> Check:
    """A package of SHOWN: its version, and if `import_error` is given, its last line or None."""
    report = failure if name == "torch" else warning
    if (reason := packages.lacks(name)) is not None:
        return report(name, f"{reason}: {SHOWN[name]}", packages.install(name))
    if import_error is not None and (reason := import_error()) is not None:
        fix = f"{packages.install(name)} --force-reinstall"
        return report(name, f"cannot be imported: {reason}: {SHOWN[name]}", fix)
    distribution = packages.find(name)
    assert distribution is not None, "it is installed"
    return ok(name, distribution.version)


def check_compiler() -> Check:
    """Whether the C++ compiler works: torch.compile and operators of DeepSpeed need one."""
    name, needs = "compiler", "torch.compile and operators of DeepSpeed cannot be built"
    command = environment.cxx_compiler()
    if command is None:
        fix = "install g++ or clang++ (package g++ or gcc-c++; on macOS  xcode-select --install )"
        return warning(name, f"no C++ compiler on PATH: {needs}", fix)
    done = subprocess.run(
        [command, "-x", "c++", "-std=c++17", "-fsyntax-only", "-"],
        input=_PROGRAM,
        capture_output=True,
        text=True,
        timeout=_COMPILE_S,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        fix = f"reinstall {command} with its C++ headers, or set CXX to another compiler"
        return warning(name, f"{command} compiles nothing: {reason}: {needs}", fix)
    return ok(name, shutil.which(command) or command)
