"""Sends SIGTERM and SIGINT at any moment of the start of a run, and checks how it ends.

    python -m benchmarks.startup_signals --each 50

The moments are spread evenly over the first seconds. A run ends well if its exit code is that of
the signal (75 or 130; 143 or 130 before the first line of the program), it prints no traceback,
it ends within seconds, and it leaves a run folder only with a checkpoint. Exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import command, machine, save_rows

PACKAGES = ("torch",)
OVER_S = 4.0
"""The signals are spread over this time from the start."""
_LIMIT_S = 60.0
"""For a run to end after its signal, on a busy machine."""
_CODES = {
    signal.SIGTERM: {75: "saved or stopped", -signal.SIGTERM: "before the program"},
    signal.SIGHUP: {75: "saved or stopped", -signal.SIGHUP: "before the program"},
    signal.SIGINT: {130: "saved or stopped", -signal.SIGINT: "before the program"},
}


@dataclass(frozen=True)
class Row:
    """How a run ended after a signal."""

    signal: str
    processes: int
    at_s: float
    code: int
    problem: str | None
    """None: as documented."""

    @property
    def kind(self) -> str:
        """The moment, as far as the exit code tells; or the problem."""
        return self.problem or _CODES[signal.Signals[self.signal]][self.code]


def interrupted(number: signal.Signals, processes: int, at_s: float) -> Row:
    """Start a run of a minute or more, and send it `number` after `at_s` seconds."""
    folder = Path(tempfile.mkdtemp(prefix="gearshift-signals-"))
    out = folder / "run"
    arguments = [sys.executable, "-m", "launcher", "--model", "language:tiny", "--epochs", "50"]
    arguments += ["--nproc", str(processes), "--out", str(out)]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    # Shells start jobs in the background with SIGINT ignored.
    options["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    try:
        with subprocess.Popen(arguments, cwd=folder, **options) as started:
            time.sleep(at_s)
            started.send_signal(number)
            try:
                text, _ = started.communicate(timeout=_LIMIT_S)
            except subprocess.TimeoutExpired:
                started.kill()
                text, _ = started.communicate()
        problem = _problem(number, started.returncode, text, out)
        return Row(number.name, processes, round(at_s, 2), started.returncode, problem)
    finally:
        shutil.rmtree(folder)


def _problem(number: signal.Signals, code: int, text: str, out: Path) -> str | None:
    if code not in _CODES[number]:
        return f"exit code {code}: {text[-500:]}"
    if "Traceback" in text and ("run folder" in text or "launcher/__main__.py" in text):
        return f"a traceback: {text[-500:]}"
    if out.exists() and not (out / "last").exists():
        return f"a run folder without a checkpoint: {sorted(path.name for path in out.iterdir())}"
    return None


def table(ends: list[Row]) -> str:
    """A row for each signal and number of processes, as Markdown."""
    lines = ["| signal | processes | sent | before the program | saved or stopped | problems |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, processes in sorted({(end.signal, end.processes) for end in ends}):
        some = [end for end in ends if (end.signal, end.processes) == (name, processes)]
        kinds = Counter("problem" if end.problem else end.kind for end in some)
        counts = (kinds["before the program"], kinds["saved or stopped"], kinds["problem"])
        lines.append(
            f"| {name} | {processes} | {len(some)} | " + " | ".join(map(str, counts)) + " |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table and each problem; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--each", type=int, default=50, help="signals of each kind")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ends = []
    for number in (signal.SIGTERM, signal.SIGINT):
        for count in range(options.each):
            at_s = OVER_S * (count + 0.5) / options.each
            ends.append(interrupted(number, 1 + count % 2, at_s))
    print(table(ends))
    for end in ends:
        if end.problem:
            print(f"{end.signal} after {end.at_s} s, {end.processes} processes: {end.problem}")
    if options.json:
        facts = machine(PACKAGES)
        save_rows(options.json, command("startup_signals", sys.argv[1:]), facts, ends)
    return 1 if any(end.problem for end in ends) else 0


if __name__ == "__main__":
    sys.exit(main())
