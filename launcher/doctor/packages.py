"""Checks of Python and of the packages that Gearshift requires."""

from __future__ import annotations

import importlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from launcher.base import environment
from launcher.doctor.result import Check, failure, ok, warning

OWN = "gearshift"
SHOWN = {
    "torch": "no engine can run",
    "deepspeed": "the engines zero1 to zero3-offload cannot run",
    "fairscale": "the engine oss cannot run",
    "wandb": "--track wandb cannot run",
}
"""Packages with a check of their own: what is impossible without them."""


def _import_deepspeed() -> None:
    from engines.zero import library

    library.load("cpu")


def _import_fairscale() -> None:
    importlib.import_module("fairscale.optim")


IMPORTS = {"deepspeed": _import_deepspeed, "fairscale": _import_fairscale}
"""How the engines import a package."""
_IMPORT_S = 120.0
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
        requirements = map(Requirement, lines)
        here = [
            requirement
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
        return {requirement.name: requirement for requirement in here}

    def lacks(self, name: str) -> str | None:
        """`not installed`, or the version out of range; None: neither."""
        distribution, wanted = self.find(name), self.required.get(name)
        if distribution is None:
            return "not installed"
        if wanted is not None and not wanted.specifier.contains(
            distribution.version, prereleases=True
        ):
            return f"{distribution.version} is installed, {wanted.specifier} is required"
        return None

    def install(self, *names: str) -> str:
        """The command that installs packages in a valid version."""
        wanted = [self.required.get(name) for name in names]
        words = [
            name if requirement is None else f"{name}{requirement.specifier}"
            for name, requirement in zip(names, wanted, strict=True)
        ]
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
    name: str, packages: Packages, import_error: Callable[[], str | None] = lambda: None
) -> Check:
    """A package of SHOWN: its version, and whether it can be imported.

    `import_error` imports it: the last line of the error, or None.
    """
    report = failure if name == "torch" else warning
    if (reason := packages.lacks(name)) is not None:
        return report(name, f"{reason}: {SHOWN[name]}", packages.install(name))
    if (reason := import_error()) is not None:
        fix = f"{packages.install(name)} --force-reinstall"
        return report(name, f"cannot be imported: {reason}: {SHOWN[name]}", fix)
    distribution = packages.find(name)
    assert distribution is not None, "it is installed"
    return ok(name, distribution.version)


class Imports:
    """Imports of packages, begun at once, each in a process of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        """Of IMPORTS."""
        code = f"import sys; from {__name__} import IMPORTS; IMPORTS[sys.argv[1]]()"
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, "-c", code, name],
                env={**environment.variables(), "PYTHONPATH": environment.python_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name in names
        }

    def error(self, name: str) -> str | None:
        """The last line of the error; None: it can be imported."""
        process = self._processes[name]
        try:
            stderr = process.communicate(timeout=_IMPORT_S)[1]
        except subprocess.TimeoutExpired:
            return f"not imported within {_IMPORT_S:.0f} s"
        if not process.returncode:
            return None
        lines = stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        return lines[-1]

    def close(self) -> None:
        """End the processes that have not ended."""
        for process in self._processes.values():
            process.kill()
            process.communicate()


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
