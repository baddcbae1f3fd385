"""What does each family learn by the default command, on noise, and on a real recording?

    python -m benchmarks.families --samples FOLDER

Every row is a command that anyone may type. FOLDER holds the recordings that the third kind of row
reads, by the names below; without it those rows are left out. Exit code 1 where a run failed: a
noise control outside its band is such a failure.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import command, machine
from benchmarks.outcomes import Row, read, save, table

PACKAGES = ("torch", "transformers")
NOISE = ["--set", "data.control=noise"]

RUNS: dict[str, list[str]] = {
    "event_seg": ["--model", "event_seg:tiny"],
    "language": ["--model", "language:tiny", "--data", "embedded:commands"],
    "abr": ["--model", "abr:tiny"],
    "doc_translation": ["--model", "doc_translation:tiny"],
    "eeg_text": ["--model", "eeg_text:tiny"],
}
"""The default run of each family; a noise control is the same words and NOISE."""

SAMPLES: dict[str, list[list[str]]] = {}
"""Runs on recordings; a word `{...}` is a file below FOLDER."""

SHOWN: dict[str, list[str]] = {}
"""The metrics of a family that stand in the table; the goal where it has none here."""


def run(family: str, kind: str, words: list[str], samples: Path | None) -> Row:
    """Start `words` as a person would, wait for the end, and read what it left."""
    told = shlex.join(["python", "-m", "launcher", *(word.strip("{}") for word in words)])
    given = [
        str(samples / word.strip("{}")) if word[0] == "{" and samples else word for word in words
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *given, "--out", str(place)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - begin
        if not (place / "result.json").exists():
            raise RuntimeError(f"{told} left no result:\n{done.stderr[-4000:]}")
        return read(family, kind, told, place, done.returncode, seconds)


def runs(samples: Path | None) -> list[tuple[str, str, list[str]]]:
    """Family, kind and words of every run, family by family."""
    found = []
    for family, words in RUNS.items():
        found += [(family, "real", words), (family, "noise", [*words, *NOISE])]
        if samples is not None:
            found += [(family, "sample", one) for one in SAMPLES.get(family, [])]
    return found


def main() -> int:
    """Run everything, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=Path, help="the folder with recordings")
    parser.add_argument("--only", choices=RUNS, help="one family")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    rows = []
    for family, kind, words in runs(options.samples):
        if options.only in (None, family):
            rows.append(run(family, kind, words, options.samples))
            print(f"{rows[-1].command}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(table(rows, SHOWN))
    if options.json:
        words = ["--samples", "FOLDER"] if options.samples else []
        save(options.json, command("families", words), facts, rows)
    return int(any(row.exit_code for row in rows))


if __name__ == "__main__":
    sys.exit(main())
