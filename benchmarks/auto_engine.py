"""Does engine auto take the fastest engine that fits?

    python -m benchmarks.auto_engine
    python -m benchmarks.auto_engine --cases 3 --rounds 1
    python -m benchmarks.auto_engine --json FILE --continue     # the cases that FILE lacks

For each case every engine whose plan fits is trained for some steps, on two processes, in turns.
With a memory limit it trains in a control group with this limit (root, Linux), and the plan is for
a machine with so much memory. Counted are seconds per step after the first one. After the first
round only the engines near the fastest are measured again, and the one that auto takes. A hit: it
is the fastest by the medians of all rounds, or within 5 % of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import command, listed, load_rows, machine, save_rows
from benchmarks.start_memory import control_group
from launcher.base.diagnostics import plain
from launcher.config.machine import detect_machine
from launcher.config.provenance import Chosen, CliArgs
from launcher.plan import auto
from launcher.plan.auto import Candidate
from launcher.plan.ladder import ENGINE
from launcher.plan.target import Described
from launcher.run_folder.resume import Decision
from launcher.run_folder.start import decide
from models.catalog import FAMILIES
from training.logging.quantities import size

WITHIN = 0.05
NEAR = 0.3
"""Behind the fastest in the first round: such engines are measured again, others are out."""
NOT_MEASURED = ["not measured"]
_GIB = 2**30
_SMALL = ("data.seq_len=128", "train.global_batch=4", "train.micro_batch=2")
"""Of a large model: steps of seconds instead of minutes."""


@dataclass(frozen=True)
class Case:
    """A run on two processes, and the memory that it may take."""

    model: str
    sets: Sequence[str] = ()
    limit_bytes: int | None = None
    steps: int = 6


CASES = (
    *(Case(f"{family}:tiny", steps=30) for family in FAMILIES),
    Case("language:small", steps=12),
    Case("language:full", _SMALL),
    Case("language:full", _SMALL, 3 * _GIB),
    Case("language:full", _SMALL, 5 * _GIB // 2),
    Case("language:124M", _SMALL),
    Case("language:124M", _SMALL, 6 * _GIB),
    Case("language:124M", _SMALL, 11 * _GIB // 2),
)


@dataclass(frozen=True)
class Row:
    """A case: what auto took, and the seconds of a step under each engine; None: it failed."""

    model: str
    sets: Sequence[str]
    limit_bytes: int | None
    chosen: str
    changes: Mapping[str, object]
    seconds: Mapping[str, float | None]

    @property
    def behind(self) -> float | None:
        """How much slower than the fastest it is, as a share; None: it failed."""
        own = self.seconds[self.chosen]
        known = [s for s in self.seconds.values() if s is not None]
        return None if own is None else own / min(known) - 1

    @property
    def is_hit(self) -> bool:
        """Whether it is the fastest, or nearly."""
        return self.behind is not None and self.behind <= WITHIN


def measure(case: Case, rounds: int) -> Row:
    """Plan the case, and train every engine that fits. Raises SystemExit if none does."""
    here = detect_machine()
    if case.limit_bytes is not None:
        here = replace(here, ram_bytes=case.limit_bytes)
    args = CliArgs(model=case.model, sets=case.sets, options={"engine.nproc": ("--nproc", "2")})

    def decide_with(chosen: Chosen | None) -> Decision:
        return decide(args, None, here, None, chosen)

    resolved = decide_with(None).resolved
    found = auto.candidates(resolved, decide_with, Described(here), is_thorough=True)
    chosen = auto.best(found)
    if chosen is None:
        raise SystemExit(f"{case}: nothing fits: {[one.needs for one in found]}")
    fitting = [one for one in found if one.fits]
    seconds: dict[str, list[float | None]] = {one.engine: [] for one in fitting}
    for number in range(rounds):
        near = fitting if number == 0 else _near(fitting, seconds, chosen.engine)
        for one in near if number % 2 == 0 else reversed(near):
            seconds[one.engine].append(_step_s(case, one))
    return Row(
        case.model,
        case.sets,
        case.limit_bytes,
        chosen.engine,
        dict(chosen.changes),
        {engine: _median(times) for engine, times in seconds.items()},
    )


def _near(
    fitting: Sequence[Candidate], seconds: Mapping[str, Sequence[float | None]], chosen: str
) -> list[Candidate]:
    """Those that may still be the fastest, and the one that auto takes."""
    first = {engine: times[0] for engine, times in seconds.items() if times[0] is not None}
    bound = (1 + NEAR) * min(first.values(), default=0)
    return [one for one in fitting if first.get(one.engine, bound) < bound or one.engine == chosen]


def _median(times: Sequence[float | None]) -> float | None:
    known = [time for time in times if time is not None]
    return statistics.median(known) if len(known) == len(times) else None


def _step_s(case: Case, one: Candidate) -> float | None:
    """Median seconds of the steps after the first; None: the run failed."""
    settings = {key: plain(value) for key, value in one.settings.items() if key != ENGINE}
    given = [text for text in case.sets if text.partition("=")[0] not in settings]
    sets = [*given, *(f"{key}={value}" for key, value in settings.items())]
    sets += [
        f"stop.after={case.steps}",
        "eval.every=null",
        "eval.each_epoch=false",
        "eval.last=false",
    ]
    sets += ["save.every=null", "save.last=false", "log.every=1", "train.preview=false", "track=[]"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [sys.executable, "-m", "launcher", "--model", case.model, "--nproc", "2"]
        words += ["--engine", one.engine, "--out", str(out)]
        for text in sets:
            words += ["--set", text]
        limited = nullcontext() if case.limit_bytes is None else control_group(case.limit_bytes)
        with limited as group:
            if group is not None:
                enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
                words = ["sh", "-c", enter, "sh", *words]
            done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            print(f"{case.model} {one.engine}: {done.stderr[-2000:]}", file=sys.stderr)
            return None
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = [line["step_time_s"] for line in lines if line["kind"] == "train"]
    return statistics.median(times[1:])


def table(rows: Sequence[Row]) -> str:
    """The cases as a Markdown table, and how many are hits."""
    lines = ["| model | memory | auto | seconds of a step | behind | |"]
    lines += ["|---|---:|---|---|---:|---|"]
    for row in rows:
        times = ", ".join(
            f"{engine} {'failed' if s is None else f'{s:.3g}'}" for engine, s in row.seconds.items()
        )
        limit = "–" if row.limit_bytes is None else size(row.limit_bytes)
        sets = "".join(f" `{text}`" for text in row.sets)
        changes = "".join(f" `{key}={plain(value)}`" for key, value in row.changes.items())
        behind = "failed" if row.behind is None else f"{row.behind:.0%}"
        lines.append(
            f"| `{row.model}`{sets} | {limit} | `{row.chosen}`{changes} | {times} | {behind} "
            f"| {'✓' if row.is_hit else '✗'} |"
        )
    hits = sum(row.is_hit for row in rows)
    last = f"| fastest, or within {WITHIN:.0%} | | | | | {hits} of {len(rows)} |"
    return "\n".join([*lines, last])


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine")
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first ones")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="keep the rows of the JSON file"
    )
    options = parser.parse_args()
    if options.resume and not options.json:
        parser.error("--continue needs --json FILE")
    facts, found = machine(("torch", "deepspeed", "fairscale")), []
    words = [word for word in sys.argv[1:] if word != "--continue"]
    if options.resume:
        found = load_rows(options.json, Row)[2]
    for case in CASES[len(found) : options.cases]:
        found.append(measure(case, options.rounds))
        print(table(found[-1:]).splitlines()[2], file=sys.stderr, flush=True)
        if options.json:
            save_rows(options.json, command("auto_engine", words), facts, found)
    print(f"{listed(facts)}\n{table(found)}")


if __name__ == "__main__":
    main()
