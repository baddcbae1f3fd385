"""What does each family reach with the default command, on noise, and on a real recording?

    python -m benchmarks.families --samples FOLDER

Every row is a command that anyone may type. FOLDER holds the recordings that the third kind of row
reads, by the names below; without it those rows are left out. Exit code 1 where a run failed: a
noise control outside its band is such a failure.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import command, machine, markdown, save_rows

PACKAGES = ("torch", "transformers")
NOISE = ["--set", "data.control=noise"]

Arguments = list[str]

RUNS: dict[str, list[Arguments]] = {
    "event_seg": [["--model", "event_seg:tiny"]],
    "language": [
        ["--model", "language:small"],
        [
            *("--model", "language:tiny", "--data", "embedded:commands"),
            *("--max-steps", "900", "--batch-size", "32", "--lr", "8e-3"),
        ],
    ],
    "abr": [["--model", "abr:tiny"]],
    "doc_translation": [["--model", "doc_translation:tiny"]],
    "eeg_text": [["--model", "eeg_text:tiny"]],
}
"""Runs of each family on its embedded data; each is repeated as a noise control."""

SAMPLES: dict[str, list[Arguments]] = {
    "event_seg": [],  # the small recordings have no labels, and doc_translation has none
    "language": [
        [
            *("--model", "language:small", "--data", "{language/all.nl}"),
            *("--set", "data.answers={language/all.cm}", "--set", "data.on_bad=skip"),
        ]
    ],
    "abr": [["--model", "abr:tiny", "--data", "{abr/ABR-52-3}"]],
    "doc_translation": [],
    "eeg_text": [
        [
            *("--model", "eeg_text:tiny", "--data", "{eeg/eeglab_data.set}"),
            *("--set", "model.stage=encoder"),
        ]
    ],
}
"""Runs on recordings; `{...}` is a file below FOLDER."""

SHOWN: dict[str, list[str]] = {
    "event_seg": ["val_iou"],
    "language": ["val_loss", "bits_per_byte", "exact_match"],
    "abr": ["val_macro_f1", "val_exists_auroc", "val_latency_mae_ms", "val_signal_mse"],
    "doc_translation": ["val_bleu", "val_loss"],
    "eeg_text": ["val_rouge1_gain", "val_retrieval", "val_masked_r2"],
}
"""The metrics of a family that the table shows, if a run has them."""
_FILE = re.compile(r"\{(.+)\}")


@dataclass(frozen=True)
class Row:
    """One command and the results in its run folder."""

    family: str
    kind: str
    """real, noise or sample: embedded data, the same without information, a recording."""
    command: str
    parameters: int
    data: str
    """Description of the data."""
    metrics: Mapping[str, float]
    """Of the last evaluation, the goal first."""
    control: Sequence[str]
    """Of a noise control: each metric with its band, as text."""
    exit_code: int
    seconds: float


def read(family: str, kind: str, command: str, run: Path, exit_code: int, seconds: float) -> Row:
    """The row of a run that has ended. Reads its folder."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = _lines(run / "metrics.jsonl")
    last = [line for line in lines if line["kind"] == "eval"][-1]["metrics"]
    goal = result["best"]["metric"]
    reports = [e["facts"]["text"] for e in _lines(run / "events.jsonl") if e["kind"] == "control"]
    return Row(
        family,
        kind,
        command,
        result["parameters"],
        _data(result["data"]),
        {goal: last[goal], **last},
        reports,
        exit_code,
        seconds,
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _data(facts: Mapping[str, Any]) -> str:
    """Source, format, and number of samples of each split."""
    kind = facts.get("format") or facts.get("kind")
    parts = [Path(str(facts["source"])).name] + ([str(kind)] if kind else [])
    samples = " / ".join(f"{count:,}" for count in facts["samples"].values())
    return f"{', '.join(dict.fromkeys(parts))}; {samples} samples"


def table(rows: Sequence[Row]) -> list[str]:
    """A row for each run with that of its noise control, as the lines of a Markdown table."""
    heads = [
        "family",
        "command",
        "parameters",
        "data read (train / val / test)",
        "result",
        "noise control",
    ]
    cells = []
    controls = {row.command: row for row in rows if row.kind == "noise"}
    for row in (row for row in rows if row.kind != "noise"):
        names = [name for name in SHOWN.get(row.family, ()) if name in row.metrics]
        names = names or [next(iter(row.metrics))]
        found = ", ".join(f"{name} {row.metrics[name]:.3g}" for name in names)
        noise = controls.get(f"{row.command} {shlex.join(NOISE)}")
        control = "; ".join(noise.control) if noise else "–"
        cells.append(
            [row.family, f"`{row.command}`", f"{row.parameters:,}", row.data, found, control]
        )
    return markdown(heads, cells)


def run(family: str, kind: str, arguments: Arguments, samples: Path | None) -> Row:
    """Run the command line `arguments` and read its results."""
    shown = [_FILE.sub(lambda match: Path(match[1]).name, argument) for argument in arguments]
    given = [
        _FILE.sub(lambda match: str((samples or Path()) / match[1]), argument)
        for argument in arguments
    ]
    line = shlex.join(["python", "-m", "launcher", *shown])
    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder) / "run"
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *given, "--out", str(run_folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        seconds = time.perf_counter() - begin
        if not (run_folder / "result.json").exists():
            raise RuntimeError(f"{line} left no result:\n{done.stderr[-4000:]}")
        return read(family, kind, line, run_folder, done.returncode, seconds)


def runs(samples: Path | None) -> list[tuple[str, str, Arguments]]:
    """Family, kind and arguments of every run, by family."""
    found = []
    for family, real in RUNS.items():
        for arguments in real:
            found += [(family, "real", arguments), (family, "noise", [*arguments, *NOISE])]
        if samples is not None:
            found += [(family, "sample", arguments) for arguments in SAMPLES[family]]
    return found


def main() -> int:
    """Run everything, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=Path, help="the folder with recordings")
    parser.add_argument("--only", choices=RUNS, help="one family")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    rows = []
    for family, kind, arguments in runs(options.samples):
        if options.only in (None, family):
            rows.append(run(family, kind, arguments, options.samples))
            print(f"{rows[-1].command}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print("\n".join(table(rows)))
    if options.json:
        arguments = ["--samples", "FOLDER"] if options.samples else []
        save_rows(options.json, command("families", arguments), facts, rows)
    return int(any(row.exit_code for row in rows))


if __name__ == "__main__":
    sys.exit(main())
