"""Does each mode keep its promises, compared with mode default of the same family and size?

    python -m benchmarks.modes

Every row comes from a `compare` command. Small sizes train to the end, with three seeds: their
promises of quality are decided by an interval. Large models take a few steps only: a step of
language:full is a minute on two cores. Where the global batch is smaller than the mode's, it is so
for all that are compared. Every run evaluates: promises count its time and its memory. A start
after an interruption reads the comparisons that have finished. Exit code 0 also where a promise is
broken: that is what is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.figures import command, joined, load_rows, machine, markdown, save_rows

PACKAGES = ("torch", "transformers")

_SEEDS = ("--seeds", "3")
COMPARISONS: dict[str, list[list[str]]] = {
    "event_seg": [
        ["--model", "event_seg", "--modes", "lite", "--steps", "4"],
        ["--model", "event_seg:tiny", "--modes", "fast,ultra-fast,staged", *_SEEDS],
    ],
    "language": [
        [
            *("--model", "language", "--modes", "resource-efficient", "--steps", "4"),
            # An evaluation of all texts would take an hour.
            *("--set", "train.global_batch=16", "--set", "data.fraction=0.05"),
        ],
        ["--model", "language:tiny", "--modes", "fast,ultra-fast", *_SEEDS],
        [
            *("--model", "language:tiny", "--modes", "staged", "--data", "embedded:commands"),
            *_SEEDS,
        ],
    ],
    "abr": [
        # A third of the patients: steps and evaluations shrink by the same factor. With far
        # fewer, ultra-fast would drop much of its only global batch of 512.
        [
            *("--model", "abr", "--modes", "fast,ultra-fast", "--steps", "2"),
            *("--set", "data.fraction=0.33", "--repeat", "3"),
        ],
        # Quality takes whole runs, which the full size cannot complete on two cores.
        ["--model", "abr:tiny", "--modes", "fast,ultra-fast,staged", *_SEEDS],
    ],
    "doc_translation": [
        [
            *("--model", "doc_translation", "--modes", "conservative", "--steps", "4"),
            # Fewer pages and shorter texts: total_time includes evaluations, which generate text.
            *("--set", "train.global_batch=4", "--set", "data.fraction=0.1"),
            *("--set", "data.max_new_tokens=64"),
        ],
        # Its score jumps late in training, sooner or later by the seed.
        ["--model", "doc_translation:tiny", "--modes", "fast,ultra-fast,staged", "--seeds", "5"],
    ],
    "eeg_text": [
        [
            *("--model", "eeg_text", "--modes", "staged", "--steps", "4"),
            *("--set", "data.fraction=0.02", "--set", "data.text_len=16"),
        ],
        ["--model", "eeg_text:tiny", "--modes", "fast,ultra-fast,staged", *_SEEDS],
    ],
}
"""Arguments of each `compare` by family, with the modes made for it."""


@dataclass(frozen=True)
class Row:
    """One promise of a mode, and its measurement."""

    model: str
    mode: str
    """The stage, in staged training."""
    promise: str
    bounds: Mapping[str, Any]
    measured: float | None
    kept: bool | None
    why: str | None
    """Why it was not measured, or where it was planned."""
    command: str
    planned: bool = False
    """A plan gives the figure."""


def run(arguments: Sequence[str], parent: Path) -> Iterator[Row]:
    """A row for each promise that `compare` checks with `arguments`, in a folder of `parent`.

    A comparison that has finished there is read. Raises RuntimeError if it has no result.
    """
    line = _line(arguments)
    digest = hashlib.sha256(line.encode()).hexdigest()[:8]
    out = parent / f"{arguments[1].replace(':', '-')}-{arguments[3].replace(',', '-')}-{digest}"
    content = _result(out)
    if content is None:
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "launcher", "compare", *arguments, "--json"]
        done = subprocess.run([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
        content = _result(out)
        if content is None:
            raise RuntimeError(f"{line} did not finish; exit code {done.returncode}")
    for row in content["rows"]:
        print(_summary(row), file=sys.stderr, flush=True)
        for promise in row["promises"]:
            mode = f"{row['mode']} · {row['stage']}" if row.get("stage") else row["mode"]
            name, bounds, measured = promise["name"], promise["promised"], promise["measured"]
            ends = (promise["kept"], promise.get("why"), line, promise["planned"])
            yield Row(row["model"], mode, name, bounds, measured, *ends)


def _result(out: Path) -> Mapping[str, Any] | None:
    """The result of a comparison that was not interrupted; None: there is none."""
    if not (path := out / "compare.json").exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    is_cut = any(text.startswith("interrupted") for text in content["warnings"])
    return None if is_cut else content


def _summary(row: Mapping[str, Any]) -> str:
    """The numbers behind the ratios, for the log of the benchmark."""
    names = ("step_s", "epoch_s", "samples_per_s", "units_per_s", "peak_memory_bytes")
    shown = (f"{name} {row[name]:.4g}" for name in names if row.get(name) is not None)
    return f"{row['model']} {row['mode']} {row.get('stage') or ''}: {', '.join(shown)}"


def table(rows: Sequence[Row]) -> list[str]:
    """A row for each mode of a comparison, its promises by what was measured, in Markdown."""
    found = []
    for (model, mode, _), group in groupby(rows, lambda row: (row.model, row.mode, row.command)):
        cells: dict[bool | str | None, list[str]] = {True: [], False: [], "planned": [], None: []}
        for row in group:
            cells["planned" if row.planned else row.kept].append(_promise(row))
        texts = (", ".join(promised) or "–" for promised in cells.values())
        found.append([f"`{model}`", f"`{mode}`", *texts])
    heads = ["model", "mode", "kept ✓", "broken ✗", "planned ≈", "not measured or decided"]
    return markdown(heads, found)


def _promise(row: Row) -> str:
    """A promise with its measurement and its bound, or why it was not measured."""
    if row.measured is None:
        return f"{row.promise}: {row.why}"
    least, most = row.bounds.get("at_least"), row.bounds.get("at_most")
    name = row.promise.removesuffix("_bytes")
    unit, scale = ("", 1.0) if name == row.promise else (" GiB", 2**30)
    signs = {"=": least} if least == most else {"≥": least, "≤": most}
    bounds = [f"{sign} {bound / scale:.3g}" for sign, bound in signs.items() if bound is not None]
    sign = f" {mark(row)}" if row.planned else f": {row.why}" if row.why else ""
    return f"{name} {row.measured / scale:.3g}{unit} ({', '.join(bounds)}){sign}"


def mark(row: Row) -> str:
    """Whether a promise is kept, after ≈ by a plan; and why it was not measured."""
    sign = "≈" * row.planned + {True: "✓", False: "✗", None: "not measured"}[row.kept]
    return sign if row.why is None else f"{sign}: {row.why}"


def with_others(
    path: Path, rows: Sequence[Row], facts: Mapping[str, str]
) -> tuple[list[Row], dict[str, str]]:
    """`rows` with those of the other comparisons in the file, in order of COMPARISONS; the facts.

    The versions of a package of both are named. Raises RuntimeError if the others were measured on
    another machine.
    """
    _, where, stored = load_rows(path, Row)
    if any(where.get(name) != fact for name, fact in facts.items() if name not in PACKAGES):
        raise RuntimeError(f"{path} was measured on {where}, not on {dict(facts)}: run all")
    measured = {row.command for row in rows}
    of_command: dict[str, list[Row]] = {}
    for row in (*rows, *(row for row in stored if row.command not in measured)):
        of_command.setdefault(row.command, []).append(row)
    commands = [_line(arguments) for group in COMPARISONS.values() for arguments in group]
    return [row for line in commands for row in of_command.get(line, ())], joined(where, facts)


def _line(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "launcher", "compare", *arguments])


def main() -> int:
    """Run every comparison, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="models with this text, such as abr, :tiny or :full; JSON keeps the others",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/modes"),
        help="the comparisons; delete it to measure again; default: %(default)s",
    )
    options = parser.parse_args()

    rows: list[Row] = []
    for arguments in (given for group in COMPARISONS.values() for given in group):
        model = arguments[1] if ":" in arguments[1] else f"{arguments[1]}:full"
        if options.only in model:
            rows += run(arguments, options.folder)
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print("\n".join(table(rows)))
    if options.json:
        if options.only and options.json.exists():
            rows, facts = with_others(options.json, rows, facts)
        save_rows(options.json, command("modes", []), facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
