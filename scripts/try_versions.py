"""Installs the wheel with other versions of Python and torch, and trains with each.

    python -m scripts.try_versions --json benchmarks/results/versions.json

By default every supported Python on PATH, with the oldest and the newest supported torch. Pip's own
variables, such as PIP_INDEX_URL, choose between builds for CPUs and for GPUs. Rows of other versions
in the file stay. Needs the network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import load_rows, machine, markdown, save_rows

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TORCHES = ("2.6.0", "2.15.0")
"""The oldest and the newest supported one."""
ENGINES = {"local": "1", "ddp": "2", "fsdp": "2", "oss": "2", "zero2": "2", "zero3": "2"}
"""With their number of processes."""
_COMMANDS = ("--help", "list models", "explain optim.lr --fast")
_VERSION = "import platform; print(platform.python_version())"


@dataclass(frozen=True)
class Row:
    """What worked with one version of Python and of torch."""

    python: str
    torch: str
    steps: Mapping[str, str | None]
    """What was run, with the last line of its error; None: it works."""


def tried(python: str, torch: str, wheel: Path) -> Row:
    """The row of a virtual environment of `python` with `torch`."""
    with tempfile.TemporaryDirectory(prefix="gearshift-versions-") as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)

        def error(*arguments: str) -> str | None:
            command = [f"{folder}/bin/python", *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            return lines[-1] if done.returncode else None

        version = subprocess.check_output([python, "-c", _VERSION], text=True).strip()
        pip = ("-m", "pip", "install", "--quiet", "--prefer-binary")
        steps = {"install": error(*pip, str(wheel), f"torch=={torch}")}
        if steps["install"] is None:
            failed = (error("-m", "launcher", *line.split()) for line in _COMMANDS)
            steps["command line"] = next(filter(None, failed), None)
            for engine, count in ENGINES.items():
                line = f"--model language:tiny --max-steps 2 --engine {engine} --nproc {count} --out {engine}"
                steps[engine] = error("-m", "launcher", *line.split())
        return Row(version, torch, steps)


def table(rows: Sequence[Row]) -> str:
    """A row for each version of Python and torch, as Markdown."""
    lines = []
    for row in sorted(rows, key=lambda row: [_numbers(row.python), _numbers(row.torch)]):
        names: dict[str, list[str]] = {}  # by the error
        for engine in ENGINES:
            names.setdefault(_shown(row, engine), []).append(f"`{engine}`")
        training = "; ".join(f"{', '.join(some)} {shown}" for shown, some in names.items())
        lines.append([row.python, row.torch, _shown(row, "install"), _shown(row, "command line"), training])
    return "\n".join(markdown(["Python", "torch", "install", "command line", "training"], lines))


def _shown(row: Row, name: str) -> str:
    if name not in row.steps:
        return "not run"
    return f"fails: {row.steps[name]}" if row.steps[name] else "works"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def main() -> int:
    """Print the table and write the rows; the exit code is 1 if something fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", nargs="+", help="default: every supported one on PATH")
    parser.add_argument("--torch", nargs="+", default=TORCHES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pythons = options.python or [f"python{v}" for v in PYTHONS if shutil.which(f"python{v}")]
    with tempfile.TemporaryDirectory(prefix="gearshift-wheel-") as folder:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder]
        subprocess.run([*pip, str(ROOT)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        rows = [tried(python, torch, wheel) for python in pythons for torch in options.torch]
    print(table(rows))
    if options.json:
        new = {(row.python, row.torch) for row in rows}
        before = load_rows(options.json, Row)[2] if options.json.exists() else []
        kept = [row for row in before if (row.python, row.torch) not in new]
        save_rows(options.json, "python -m scripts.try_versions", machine(()), [*kept, *rows])
    return 1 if any(error for row in rows for error in row.steps.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
