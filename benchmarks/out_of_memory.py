"""Does a run survive a real out of memory, at any moment, under each engine?

    python -m benchmarks.out_of_memory
    python -m benchmarks.out_of_memory --engines local zero2 --ranks 2 --moments save
    python -m benchmarks.out_of_memory --cause refused

Each run trains in a control group with a memory limit (root, Linux). At the chosen moment of step 4
its last rank fills more memory than the limit, as long as its micro-batch is 8: the kernel kills
the process. With --cause refused there is no group, and the allocation fails at once. The run must
end by itself with exit code 0, and every logged loss must be that of a run without ballast: the
same to the last bit up to the checkpoint that it restarted from, and to the rounding of smaller
micro-batches after it. Exits 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import ballast
from benchmarks.figures import command, listed, machine, markdown, save_rows
from gearshift.engines.catalog import ENGINES
from gearshift.training.resources.memory import MOUNT

LIMIT_BYTES = 2 * 2**30
ROUNDING = 1e-5
"""Relative difference of losses whose sums are in another order, float32."""
STEPS = 8
CAUSES = {"killed": "the kernel killed", "refused": "can't allocate memory"}
"""How memory runs out, and a part of the message."""
_REFUSED_BYTES = 2**60
_LIMIT_S = 600.0
_SETTINGS = ("save.every=1", "eval.every=4", "log.every=1", "engine.threads=1", "device=cpu")


@dataclass(frozen=True)
class Row:
    """One run that ran out of memory."""

    engine: str
    ranks: int
    moment: str
    cause: str
    problem: str
    """Why it did not survive; empty: it did."""
    restarted_from: int | None
    """The step of the checkpoint; None: from the beginning."""
    difference: float | None
    """The largest relative difference of a loss; None: it cannot be compared."""
    seconds: float


def rows(
    engine: str, ranks: int, moments: Sequence[str], cause: str, folder: Path
) -> Iterator[Row]:
    """The runs of an engine. Raises SystemExit if it does not train even without ballast."""
    reference = folder / f"{engine}-{ranks}"
    done = train(engine, ranks, "", cause, reference)
    if done.returncode:
        raise SystemExit(f"{engine} on {ranks} ranks:\n{done.stderr[-4000:]}")
    for moment in moments:
        out = folder / f"{engine}-{ranks}-{moment.replace(' ', '-')}"
        began = time.monotonic()
        done = train(engine, ranks, moment, cause, out)
        seconds = round(time.monotonic() - began, 1)
        found = [e["facts"] for e in _lines(out / "events.jsonl") if e["kind"] == "out_of_memory"]
        step = found[0].get("from_step") if found else None
        problem, difference = compare(reference, out, step or 0)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
            problem = f"exit code {done.returncode}; {errors[-1] if errors else done.stderr}"
        elif len(found) != 1 or CAUSES[cause] not in found[0]["text"]:
            problem = f"{len(found)} times out of memory instead of once"
        yield Row(engine, ranks, moment, cause, problem, step, difference, seconds)


def train(
    engine: str, ranks: int, moment: str, cause: str, out: Path
) -> subprocess.CompletedProcess[str]:
    """A run on `ranks` ranks to its end, in a control group of its own if it is to be killed."""
    arguments = ["-m", "launcher", "--model", "benchmarks.ballast:Ballast", "--engine", engine]
    arguments += ["--nproc", str(ranks), "--max-steps", str(STEPS), "--out", str(out)]
    batch = f"train.global_batch={ranks * ballast.MICRO_BATCH}"
    for setting in (*_SETTINGS, batch, f"train.micro_batch={ballast.MICRO_BATCH}"):
        arguments += ["--set", setting]
    if cause == "refused":
        return _run([sys.executable, *arguments], moment, _REFUSED_BYTES)
    with control_group(LIMIT_BYTES) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        return _run(["sh", "-c", enter, "sh", sys.executable, *arguments], moment, 2 * LIMIT_BYTES)


def _run(arguments: list[str], moment: str, size: int) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, ballast.MOMENT: moment, ballast.BYTES: str(size)}
    return subprocess.run(
        arguments, env=variables, capture_output=True, text=True, timeout=_LIMIT_S
    )


def compare(reference: Path, out: Path, restarted_from: int) -> tuple[str, float | None]:
    """What differs from the undisturbed run, and the largest relative difference of a loss."""
    expected, found = (_losses(run) for run in (reference, out))
    if [place for place, _ in expected] != [place for place, _ in found]:
        return f"logged {[place for place, _ in found]}", None
    largest = 0.0
    for ((kind, step), right), (_, loss) in zip(expected, found, strict=True):
        difference = abs(loss - right) / abs(right)
        largest = max(largest, difference)
        if difference > (0.0 if step <= restarted_from else ROUNDING):
            return f"the {kind} loss of step {step} is {loss}, not {right}", largest
    return "", largest


def _losses(run: Path) -> list[tuple[tuple[str, int], float]]:
    """The losses in the order of the log, each with its kind and step."""
    return [
        ((line["kind"], line["step"]), line.get("loss") or line["metrics"]["val_loss"])
        for line in _lines(run / "metrics.jsonl")
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: Sequence[Row]) -> list[str]:
    """A row for each engine, in how many cases it survived, as the lines of a Markdown table."""
    cells = []
    for engine, group in groupby(rows, lambda row: row.engine):
        cases = list(group)
        ranks = ", ".join(str(number) for number in sorted({row.ranks for row in cases}))
        survivors = sum(not row.problem for row in cases)
        largest = max(row.difference or 0.0 for row in cases)
        cells.append([f"`{engine}`", ranks, f"{survivors} of {len(cases)}", f"{largest:.0e}"])
    return markdown(
        ["engine", "ranks", "survived", "largest difference of a loss"], cells, numbers=2
    )


@contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """A new control group for memory. Raises SystemExit if this process may not make one."""
    two = (MOUNT / "cgroup.controllers").exists()
    group = (MOUNT if two else MOUNT / "memory") / f"gearshift-memory-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if two else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as error:
        raise SystemExit(f"this needs a control group for memory: {error}") from None
    try:
        yield group
    finally:
        while (group / "cgroup.procs").read_text():
            time.sleep(0.01)
        group.rmdir()


def main() -> int:
    """Run all cases, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--moments", nargs="+", default=ballast.MOMENTS, choices=ballast.MOMENTS)
    parser.add_argument("--cause", default="killed", choices=CAUSES)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    facts = machine(("torch", "deepspeed", "fairscale"))
    print(listed(facts))
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engines:
            for ranks in [1] if engine == "local" else options.ranks:
                for row in rows(engine, ranks, options.moments, options.cause, Path(folder)):
                    found.append(row)
                    print(row, file=sys.stderr, flush=True)
                    if options.json:
                        save_rows(
                            options.json, command("out_of_memory", sys.argv[1:]), facts, found
                        )
    print("\n".join(table(found)))
    return 1 if any(row.problem for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
