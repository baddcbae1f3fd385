"""Do runs end at their budget of time, with their whole schedule, on a machine that others use too?

    python -m benchmarks.time_budget --for 40

Three families, three schedules each: on a machine left alone, and on one that child processes keep
busy from 35 % to 65 % of the budget; and runs that are killed (SIGKILL) in the middle and resumed.
The time is that of result.json, over both processes of a resumed run, with the steps that were
lost. Exits 1 if a run ends more than 5 % off its budget, runs over by more than a step and a save,
or has another last learning rate than its schedule.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.figures import command, listed, machine, markdown, save_rows
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.training.optim.schedule import LrSchedule
from gearshift.training.settings import Schedule
from gearshift.training.train_plan import TrainPlan

FAMILIES = ("language", "event_seg", "eeg_text")
SCHEDULES = ("cosine", "linear", "wsd")
CALM, BUSY, KILLED = "left alone", "busy in the middle", "killed and resumed"
MACHINES = (CALM, BUSY, KILLED)
ALLOWED = 0.05
_SETTINGS = ("eval.samples=16", "eval.every=25%", "engine.threads=1", "log.every=1")
_BURNERS = 3
"""Processes that keep the machine busy; it has two cores."""
_LIMIT_S = 600.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Row:
    """One run with a budget of time."""

    family: str
    schedule: str
    machine: str
    """One of CALM, BUSY, KILLED."""
    budget_s: float
    wall_s: float
    steps: int
    fits: int
    step_s: float
    """Of the last steps."""
    save_s: float
    last_lr: float
    expected_lr: float
    """That of the last step of the schedule."""

    @property
    def error(self) -> float:
        """How far the end is off the budget, as a share of it."""
        return self.wall_s / self.budget_s - 1

    @property
    def problem(self) -> str:
        """What the run did not keep; empty: nothing."""
        if abs(self.error) > ALLOWED:
            return f"ended {self.error:+.1%} off its budget"
        if self.wall_s > self.budget_s + self.step_s + self.save_s:
            return "ran over by more than a step and a save"
        if abs(self.last_lr / self.expected_lr - 1) > 1e-6:
            return f"last learning rate {self.last_lr}, not {self.expected_lr}"
        return ""


def run(family: str, schedule: str, how: str, budget_s: int, out: Path) -> Row:
    """Train with the budget to its end. Raises SystemExit if the run fails."""
    words = ["--model", f"{family}:tiny", "--for", f"{budget_s}s", "--out", str(out)]
    for setting in (*_SETTINGS, f"schedule.name={schedule}"):
        words += ["--set", setting]
    process = _start(words)
    if how != CALM:
        begin = _first_step_at(out, process)
        if how == BUSY:
            _sleep_until(begin + 0.35 * budget_s)
            with burning():
                _sleep_until(begin + 0.65 * budget_s)
        else:
            _sleep_until(begin + 0.5 * budget_s)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = _start(["resume", str(out)])
    if process.wait(_LIMIT_S):
        raise SystemExit(f"{family} {schedule}, {how}: exit code {process.returncode}")
    return _row(family, schedule, how, budget_s, out)


def _start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "launcher", *words]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True)


def _first_step_at(out: Path, process: subprocess.Popen[bytes]) -> float:
    """When the first step was logged."""
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or not metrics.stat().st_size:
        if process.poll() is not None:
            raise SystemExit(f"{out}: exit code {process.returncode} before the first step")
        time.sleep(_POLL_S)
    return time.monotonic()


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


@contextmanager
def burning() -> Iterator[None]:
    """Keep the machine busy within."""
    loop = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(loop) for _ in range(_BURNERS)]
    try:
        yield
    finally:
        for burner in burners:
            with suppress(ProcessLookupError):
                burner.kill()
            burner.wait()


def _row(family: str, schedule: str, how: str, budget_s: int, out: Path) -> Row:
    reader = RunReader(out)
    result: Any = reader.result()
    lines = [line for line in reader.metrics() if line["kind"] == "train"]
    events = [event["facts"] for event in reader.events() if event["kind"] == "fitted"]
    saved = json.loads((out / "last" / "state.json").read_text(encoding="utf-8"))["facts"]
    values = read_values(out / "settings.yaml")
    section = {}
    for key, value in values.items():
        if key.startswith("schedule."):
            section[key.removeprefix("schedule.")] = value
    steps = result["steps"]
    per_epoch = round(steps / result["epochs"])
    plan = TrainPlan(steps, per_epoch, 1, 1, 1, 1, "")
    whole = LrSchedule(Schedule(**section), plan)
    return Row(
        family=family,
        schedule=schedule,
        machine=how,
        budget_s=budget_s,
        wall_s=result["wall_s"],
        steps=steps,
        fits=len(saved["fits"]),
        step_s=max(line["step_time_s"] for line in lines[-5:]),
        save_s=events[-1]["save_s"],
        last_lr=lines[-1]["lr"],
        expected_lr=values["optim.lr"] * whole.factor(steps - 1),
    )


def table(rows: Sequence[Row]) -> list[str]:
    """A row for each family and kind of machine, as the lines of a Markdown table."""
    cells = []
    ordered = sorted(
        rows, key=lambda row: (MACHINES.index(row.machine), FAMILIES.index(row.family))
    )
    for (how, family), group in groupby(ordered, lambda row: (row.machine, row.family)):
        runs = list(group)
        kept = sum(not row.problem for row in runs)
        errors = ", ".join(f"{100 * row.error:+.1f} %" for row in runs)
        steps = ", ".join(str(row.steps) for row in runs)
        schedules = ", ".join(row.schedule for row in runs)
        budget = f"{runs[0].budget_s:g} s"
        cells.append([how, family, schedules, budget, steps, errors, f"{kept} of {len(runs)}"])
    heads = ["machine", "family", "schedules", "budget", "steps", "end, off the budget", "kept"]
    return markdown(heads, cells, numbers=4)


def cases() -> Iterator[tuple[str, str, str]]:
    """Family, schedule and machine of each run."""
    turns: list[tuple[str, str, str]] = []
    for shift in range(len(SCHEDULES)):
        schedules = [*SCHEDULES[shift:], *SCHEDULES[:shift]]
        for how in (CALM, BUSY):
            turns += zip(FAMILIES, schedules, [how] * len(FAMILIES), strict=True)
    # After one of each family on each machine: the first ones alone are a fair part of all.
    turns[6:6] = [(FAMILIES[0], "cosine", KILLED), (FAMILIES[1], "wsd", KILLED)]
    yield from turns


def main() -> int:
    """Run all cases, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--for", type=int, default=40, dest="budget_s", help="seconds of each run")
    parser.add_argument("--first", type=int, help="run only so many of the cases")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    facts = machine(("torch",))
    print(listed(facts))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate([*cases()][: options.first]):
            row = run(*case, options.budget_s, Path(folder, str(number)))
            rows.append(row)
            print(f"{row} {row.error:+.1%} {row.problem}", file=sys.stderr, flush=True)
            if options.json:
                save_rows(options.json, command("time_budget", sys.argv[1:]), facts, rows)
    print("\n".join(table(rows)))
    return 1 if any(row.problem for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
