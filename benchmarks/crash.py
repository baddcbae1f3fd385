"""Kills runs at random moments, resumes them, and compares them with a run never killed.

    python -m benchmarks.crash --kills 100

Each victim is killed (SIGKILL) several times: all its processes at once, or only the supervisor, or
only one rank; at any moment from its first instruction on, or as soon as a save begins. Then it
resumes with `--resume auto`, and its checkpoints and logged numbers are compared with
the reference, bit by bit. Exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.figures import command, machine, markdown, write
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.saved_runs.differences import compare, compare_metrics
from gearshift.training.checkpoint.reader import open_checkpoint

PACKAGES = ("torch", "deepspeed", "fairscale")
PROCESSES = {"local": 1, "ddp": 2, "fsdp": 2, "zero2": 2, "oss": 2, "zero3": 2}
KILLS_A_VICTIM = 8
"""Kills per run: training between them lets kills hit early and late steps."""
_POLL_S = 0.0005
_LIMIT_S = 300.0
_SETTINGS = (
    "optim.lr=3e-3",
    "train.global_batch=8",
    "train.ema=0.9",
    "eval.every=7",
    "save.every=2",
    "save.keep_last=3",
    "save.keep_best=2",
    "log.every=3",
)


MOMENTS = ("before a step", "training", "saving")
WHOM = ("all", "supervisor", "rank")


@dataclass
class Tally:
    """The victims of one engine."""

    engine: str
    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    """By what was killed, one of WHOM."""
    moments: Counter[str] = field(default_factory=Counter)
    """By the activity at the kill, one of MOMENTS."""
    differences: list[str] = field(default_factory=list)
    """Differences of a run from the one never killed; each begins with the run."""

    @property
    def killed(self) -> int:
        """Kills in total."""
        return self.kills.total()

    @property
    def identical(self) -> int:
        """Runs without differences."""
        return self.runs - len({text.partition(":")[0] for text in self.differences})


def table(tallies: Sequence[Tally]) -> list[str]:
    """A row for each engine and one for the total, as the lines of a Markdown table."""
    heads = [
        "engine",
        "runs",
        "kills",
        *MOMENTS,
        *(f"killed: {name}" for name in WHOM),
        "identical",
    ]
    rows = [_cells(tally) for tally in tallies]
    rows.append(["in all", *(sum(column) for column in zip(*(r[1:] for r in rows), strict=True))])
    return markdown(heads, ([*map(str, row)] for row in rows), numbers=len(heads) - 1)


def _cells(tally: Tally) -> list[Any]:
    counts = [tally.moments[name] for name in MOMENTS] + [tally.kills[name] for name in WHOM]
    return [tally.engine, tally.runs, tally.killed, *counts, tally.identical]


def load(path: Path) -> tuple[str, dict[str, str], list[Tally]]:
    """Command, machine and rows of a file of this benchmark."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        row | {"kills": Counter(row["kills"]), "moments": Counter(row["moments"])}
        for row in content["rows"]
    ]
    return content["command"], content["machine"], [Tally(**row) for row in rows]


@dataclass(frozen=True)
class Case:
    """One engine, and the steps of its runs."""

    engine: str
    steps: int
    data: Path

    def arguments(self, out: Path) -> list[str]:
        """The command line that starts or resumes a run in `out`."""
        arguments = ["-m", "launcher", "--model", "language:tiny", "--engine", self.engine]
        arguments += ["--nproc", str(PROCESSES[self.engine]), "--max-steps", str(self.steps)]
        arguments += ["--data", str(self.data), "--seq-len", "64"]
        arguments += ["--resume", "auto", "--out", str(out)]
        for setting in _SETTINGS:
            arguments += ["--set", setting]
        return [sys.executable, *arguments]


class Victim:
    """A run in a folder of its own, started and killed again and again."""

    def __init__(self, case: Case, out: Path, draw: random.Random, lasts_s: float) -> None:
        self._case, self._out, self._draw, self._lasts_s = case, out, draw, lasts_s

    def completes(self) -> bool:
        """Run it without a kill; True if it completed. Raises RuntimeError if it failed."""
        done = subprocess.run(
            self._case.arguments(self._out), capture_output=True, text=True, timeout=_LIMIT_S
        )
        if done.returncode:
            raise RuntimeError(f"{self._out} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return True

    def is_killed(self, tally: Tally, while_saving: bool) -> bool:
        """Start it and kill it; False if it had ended before."""
        with subprocess.Popen(
            self._case.arguments(self._out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as started:
            before = self._newest_line()
            if while_saving:
                self._wait_for_a_save(started)
            else:
                self._wait(started, self._draw.uniform(0, self._lasts_s))
            if started.poll() is not None:
                return False
            tally.moments[self._moment(before)] += 1
            tally.kills[self._kill(started)] += 1
        return True

    def _wait(self, started: subprocess.Popen[bytes], seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            started.wait(seconds)

    def _wait_for_a_save(self, started: subprocess.Popen[bytes]) -> None:
        # Not the first checkpoint: a run saves many times.
        for _ in range(self._draw.randint(1, max(1, self._case.steps // 8))):
            while started.poll() is None and not self._is_saving():
                time.sleep(_POLL_S)
            if self._draw.random() < 0.4:
                break
            while started.poll() is None and self._is_saving():
                time.sleep(_POLL_S)
        time.sleep(self._draw.uniform(0, 0.01))

    def _hidden(self) -> list[str]:
        folder = self._out / "checkpoints"
        try:
            return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]
        except FileNotFoundError:
            return []

    def _is_saving(self) -> bool:
        return bool(self._hidden())

    def _newest_line(self) -> int:
        metrics = self._out / "metrics.jsonl"
        return metrics.stat().st_size if metrics.exists() else 0

    def _moment(self, before: int) -> str:
        if self._is_saving():
            return "saving"
        return "training" if self._newest_line() != before else "before a step"

    def _kill(self, started: subprocess.Popen[bytes]) -> str:
        """Kill it or a part of it, and wait until all of it has exited; what was killed."""
        supervisor = psutil.Process(started.pid)
        with suppress(psutil.NoSuchProcess):
            ranks = supervisor.children(recursive=True)
            whom = self._draw.choice(["all", "all", "supervisor", "rank"]) if ranks else "all"
            chosen = {"all": [supervisor, *ranks], "supervisor": [supervisor]}
            for process in chosen.get(whom) or [self._draw.choice(ranks)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs([supervisor, *ranks], timeout=_LIMIT_S)
            return whom
        return "all"


def victims(case: Case, kills: int, reference: Path, draw: random.Random) -> Iterator[Tally]:
    """Kill runs of `case` until there are `kills`; the tally after each run."""
    began = time.monotonic()
    Victim(case, reference, draw, 0.0).completes()
    lasts_s = time.monotonic() - began
    tally = Tally(case.engine)
    while tally.killed < kills:
        out = reference.with_name(f"{case.engine}-{tally.runs}")
        victim = Victim(case, out, draw, lasts_s)
        for _ in range(min(KILLS_A_VICTIM, kills - tally.killed)):
            # More than a third: some saves are over before the signal arrives.
            if not victim.is_killed(tally, while_saving=draw.random() < 0.5):
                break
        victim.completes()
        tally.runs += 1
        tally.differences += differences(reference, out)
        shutil.rmtree(out)
        yield tally


def write_data(folder: Path) -> Path:
    """Forty texts of random words, small enough that evaluating takes no longer than training."""
    draw = random.Random(0)
    arguments = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 8))) for _ in range(300)]
    folder.mkdir()
    for number in range(40):
        text = " ".join(draw.choices(arguments, k=400))
        (folder / f"{number}.txt").write_text(text)
    return folder


def differences(reference: Path, out: Path) -> Iterator[str]:
    """The differences of a victim from the reference."""
    for link in ("last", "best"):
        right, found = open_checkpoint(reference / link), open_checkpoint(out / link)
        if right.manifest.step != found.manifest.step:
            yield f"{out.name}: {link} is of step {found.manifest.step}, not {right.manifest.step}"
        elif (first := compare(right, found).first) is not None:
            yield f"{out.name}: {link} differs in {first.place}"
    checkpoints = [
        sorted(p.name for p in (run / "checkpoints").iterdir()) for run in (reference, out)
    ]
    if checkpoints[0] != checkpoints[1]:
        yield f"{out.name}: holds {checkpoints[1]}, not {checkpoints[0]}"
    expected, actual = ([*RunReader(run).metrics()] for run in (reference, out))
    logged = [[(line["kind"], line["step"]) for line in lines] for lines in (expected, actual)]
    if logged[0] != logged[1]:
        yield f"{out.name}: logged {logged[1]}, not {logged[0]}"
    lines = compare_metrics(expected, actual, 0, logged[0][-1][1])
    if lines.first is not None:
        yield f"{out.name}: {lines.first.place} is {lines.first.second}, not {lines.first.first}"


def main() -> int:
    """Kill, compare, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=100, help="over all engines")
    parser.add_argument(
        "--engines", nargs="*", default=["local", "ddp", "zero2", "fsdp"], choices=list(PROCESSES)
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    options = parser.parse_args()
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data")
        for number, engine in enumerate(options.engines):
            kills = options.kills * (number + 1) // len(options.engines)
            kills -= options.kills * number // len(options.engines)
            draw = random.Random(f"{options.seed}-{engine}")
            reference = Path(folder) / f"{engine}-reference"
            for tally in victims(Case(engine, options.steps, data), kills, reference, draw):
                tallies[engine] = tally
                print(f"{engine}: {tally.killed} of {kills} kills", file=sys.stderr, flush=True)
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print("\n".join(table(list(tallies.values()))))
    wrong = [text for tally in tallies.values() for text in tally.differences]
    for text in wrong:
        print(text)
    if options.json:
        counts = [vars(tally) for tally in tallies.values()]
        write(
            options.json,
            {"command": command("crash", sys.argv[1:]), "machine": facts, "rows": counts},
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
