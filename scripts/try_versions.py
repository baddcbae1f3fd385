"""Installs the wheel with other versions of Python and torch, and trains with each.

    python -m scripts.try_versions --json benchmarks/results/versions.json
    python3 -m scripts.try_versions --python python3 --system-torch --json ...

By default every supported Python on PATH, with the oldest and the newest supported torch, built for
CPUs only. Where there is no such torch, what does without it is tried; `--gpu-builds` takes the one
for GPUs, of gigabytes. `--system-torch` takes the torch that this system has for a Python. Rows of
other versions in the file stay. Needs the network.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import load_rows, machine, save_rows

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TORCHES = ("2.6.0", "2.15.0")
"""The oldest and the newest supported one."""
NO_TORCH = ("pydantic", "pyyaml", "rich", "psutil", "packaging", "shtab")
"""What the command line needs before it trains."""
ENGINES = {"local": "1", "ddp": "2", "fsdp": "2", "oss": "2", "zero2": "2", "zero3": "2"}
"""With their number of processes."""
_COMMANDS = (("--help",), ("list", "models"), ("explain", "optim.lr", "--fast"))
_VERSION = "import platform; print(platform.python_version())"
_TORCH = "import torch; print(torch.__version__)"


@dataclass(frozen=True)
class Row:
    """What worked with one version of Python and of torch."""

    python: str
    torch: str
    source: str | None
    """`built for CPUs`, `built for GPUs` or `of the system`; None: there was no such torch."""
    steps: Mapping[str, str | None]
    """What was run, with the last line of its error; None: it works."""


class Environment:
    """A virtual environment in a temporary folder."""

    def __init__(self, python: str, folder: Path, *, has_system: bool) -> None:
        more = ["--system-site-packages"] if has_system else []
        subprocess.run([python, "-m", "venv", *more, str(folder)], check=True)
        self._python = str(folder / "bin" / "python")
        self._folder = folder

    def error(self, *arguments: str) -> str | None:
        """The last line of the error of this Python with `arguments`; None: it works."""
        done = self._run(*arguments)
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        return lines[-1] if done.returncode else None

    def output(self, code: str) -> str | None:
        """What Python code prints; None: it failed."""
        done = self._run("-c", code)
        return None if done.returncode else done.stdout.strip()

    def install(self, *wanted: str, gpu_builds: bool = False) -> str | None:
        """As `error`, of pip. Refuses torch for GPUs, which is large, without `gpu_builds`."""
        pip = ("-m", "pip", "install", "--quiet", "--prefer-binary")
        if gpu_builds:
            return self.error(*pip, *wanted)
        report = self._folder / "report.json"
        found = self.error(*pip, "--dry-run", "--report", str(report), *wanted)
        if found is not None:
            return found
        parts = [each["metadata"] for each in json.loads(report.read_text())["install"]]
        gpu = [p["name"] for p in parts if p["name"].startswith(("nvidia-", "triton"))]
        gpu += [p["name"] for p in parts if p["name"] == "torch" and "+cpu" not in p["version"]]
        return f"would install {', '.join(gpu)}" if gpu else self.error(*pip, *wanted)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._python, *arguments], cwd=self._folder, capture_output=True, text=True)


def steps(
    environment: Environment, wheel: Path, torch: str | None, *, gpu_builds: bool = False
) -> Iterator[tuple[str, str | None]]:
    """What was run, and its error or None. `torch`: the requirement; None: without it."""
    wanted = [str(wheel)] if torch is None else [str(wheel), torch]
    more = ["--no-deps"] if torch is None else []
    found = environment.install(*more, *wanted, gpu_builds=gpu_builds)
    if torch is None and found is None:
        found = environment.install(*NO_TORCH)
    yield "install", found
    if found is not None:
        return
    failed = [environment.error("-m", "launcher", *command) for command in _COMMANDS]
    yield "command line", next((error for error in failed if error is not None), None)
    for engine, count in ENGINES.items() if torch is not None else ():
        tiny = ("--model", "language:tiny", "--max-steps", "2", "--out", engine)
        yield (engine, environment.error("-m", "launcher", *tiny, "--engine", engine, "--nproc", count))


def tried(python: str, torches: Sequence[str], wheel: Path, *, gpu_builds: bool) -> Iterator[Row]:
    """A row for each version of torch, built for CPUs if it can be had for this `python`."""
    with tempfile.TemporaryDirectory(prefix="gearshift-versions-") as folder:
        plain = Environment(python, Path(folder) / "plain", has_system=False)
        version = plain.output(_VERSION) or python
        without: dict[str, str | None] | None = None
        for torch in torches:
            wanted = f"torch=={torch}+cpu"
            if plain.error("-m", "pip", "download", "--no-deps", "--quiet", wanted) is None:
                own = Environment(python, Path(folder) / torch, has_system=False)
                yield Row(version, torch, "built for CPUs", dict(steps(own, wheel, wanted)))
            elif gpu_builds:
                own = Environment(python, Path(folder) / torch, has_system=False)
                found = steps(own, wheel, f"torch=={torch}", gpu_builds=True)
                yield Row(version, torch, "built for GPUs", dict(found))
            else:
                without = without or dict(steps(plain, wheel, None))
                yield Row(version, torch, None, without)


def tried_with_system(python: str, wheel: Path) -> Iterator[Row]:
    """The row of the torch that this system has for `python`."""
    with tempfile.TemporaryDirectory(prefix="gearshift-versions-") as folder:
        own = Environment(python, Path(folder) / "venv", has_system=True)
        version, torch = own.output(_VERSION) or python, own.output(_TORCH) or "none"
        yield Row(version, torch, "of the system", dict(steps(own, wheel, "torch")))


def table(rows: Sequence[Row]) -> str:
    """A row for each version of Python and torch, as Markdown."""
    lines = ["| Python | torch | install | command line | training |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: [_numbers(row.python), _numbers(row.torch)]):
        first = [_shown(row.steps, name) for name in ("install", "command line")]
        torch = f"{row.torch}, {row.source}" if row.source else row.torch
        lines.append(f"| {row.python} | {torch} | {' | '.join(first)} | {_trained(row)} |")
    return "\n".join(lines)


def _trained(row: Row) -> str:
    if row.source is None:
        return "not run: no build for CPUs was to be had"
    names: dict[str, list[str]] = {}  # by the error
    for engine in ENGINES:
        if engine in row.steps:
            names.setdefault(row.steps[engine] or "", []).append(f"`{engine}`")
    parts = [", ".join(some) + (f" fail: {why}" if why else "") for why, some in names.items()]
    return "; ".join(parts) or "not run"


def _shown(found: Mapping[str, str | None], name: str) -> str:
    if name not in found:
        return "not run"
    return "works" if found[name] is None else f"fails: {found[name]}"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def main() -> int:
    """Print the table and write the rows; the exit code is 1 if something fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", nargs="+", help="default: every supported one on PATH")
    parser.add_argument("--torch", nargs="+", default=TORCHES)
    parser.add_argument("--system-torch", action="store_true")
    parser.add_argument("--gpu-builds", action="store_true", help="where there is none for CPUs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pythons = options.python or [f"python{v}" for v in PYTHONS if shutil.which(f"python{v}")]
    with tempfile.TemporaryDirectory(prefix="gearshift-wheel-") as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder]
        subprocess.run([*pip, str(ROOT)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        rows: list[Row] = []
        for python in pythons:
            if options.system_torch:
                rows += tried_with_system(python, wheel)
            else:
                rows += tried(python, options.torch, wheel, gpu_builds=options.gpu_builds)
    print(table(rows))
    if options.json:
        new = {(row.python, row.torch) for row in rows}
        before = load_rows(options.json, Row)[2] if options.json.exists() else []
        kept = [row for row in before if (row.python, row.torch) not in new]
        save_rows(options.json, "python -m scripts.try_versions", machine(()), [*kept, *rows])
    return 1 if any(error for row in rows for error in row.steps.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
