"""What does each family reach with the default command, beside baselines, noise and recordings?

    python -m benchmarks.families --samples FOLDER

Every row is a command that anyone may type. Runs on built-in data are repeated with other seeds, of
data and model. FOLDER holds the recordings that the third kind of row reads, by the names below; a
row whose file is not there is left out. Exit code 1 where a run failed: a noise control outside its
band is such a failure.
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

from benchmarks.figures import command, load_rows, machine, markdown, save_rows
from gearshift.launcher.compare.study import estimate
from gearshift.training.evaluation.early_stopping import parse_target

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
        ],
        [
            *("--model", "language:small", "--data", "{language/tiny_shakespeare.txt}"),
            *("--max-steps", "2000", "--batch-size", "12", "--seq-len", "64"),
            *("--set", "optim.name=muon", "--lr", "1e-2"),
        ],
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
"""Runs on recordings; `{...}` is a file below FOLDER. tiny_shakespeare.txt is the text that
github.com/karpathy/char-rnn has in data/tinyshakespeare.
"""

SHOWN: dict[str, list[str]] = {
    "event_seg": ["val_iou"],
    "language": ["val_loss", "bits_per_byte", "exact_match"],
    "abr": [
        "val_macro_f1",
        "val_exists_auroc",
        "val_latency_mae_ms",
        "val_threshold_mae_db",
        "val_signal_mse",
    ],
    "doc_translation": ["val_bleu", "val_steds"],
    "eeg_text": ["val_rouge1_gain", "val_rouge1", "val_retrieval", "val_masked_r2"],
}
"""The metrics of a family that the tables show, if a run has them."""
ABOVE = "above_baseline"
"""How much the goal is larger than that of the best baseline."""
TARGETS: dict[str, list[str]] = {
    "event_seg": [f"{ABOVE} >= 0.03"],
    "language": ["val_loss <= 1.80"],
    "abr": [
        "val_macro_f1 >= 0.65",
        "val_exists_auroc >= 0.985",
        "val_latency_mae_ms <= 0.044",
        "val_threshold_mae_db <= 5.5",
    ],
    "doc_translation": ["val_bleu >= 99", "val_steds >= 95"],
    "eeg_text": ["val_rouge1_gain >= 0.8"],
}
"""What the first run of a family is to reach on every seed."""
_FILE = re.compile(r"\{(.+)\}")


@dataclass(frozen=True)
class Row:
    """One command and the results in its run folders."""

    family: str
    kind: str
    """real, noise or sample: embedded data, the same without information, a recording."""
    command: str
    parameters: int
    data: str
    """Description of the data."""
    metrics: Sequence[Mapping[str, float]]
    """Of the best evaluation of each seed, the goal first."""
    baselines: Sequence[Mapping[str, Mapping[str, float]]]
    """The metrics of each simple method by its name, of each seed; the best method first."""
    control: Sequence[str]
    """Of a noise control: each metric with its band, as text."""
    exit_code: int
    seconds: float
    """Of a run, on average."""


def read(run: Path) -> dict[str, Any]:
    """The fields of a row that the folder of a run tells."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    events = _lines(run / "events.jsonl")
    best = result["best"]
    goal = best["metric"]
    metrics = {}
    for event in events:
        if event["kind"] == "evaluated" and event["step"] == best["step"]:
            metrics = {goal: best["value"], **event["facts"]["metrics"]}
    baselines = {method["name"]: method["metrics"] for method in result["baselines"]}
    if "baseline" in best:
        metrics[ABOVE] = best["value"] - best["baseline"]["value"]
    return {
        "parameters": result["parameters"],
        "data": _data(result["data"]),
        "metrics": metrics,
        "baselines": baselines,
        "control": [e["facts"]["text"] for e in events if e["kind"] == "control"],
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _data(facts: Mapping[str, Any]) -> str:
    """Source, format, and number of samples of each split."""
    kind = facts.get("format") or facts.get("kind")
    parts = [Path(str(facts["source"])).name] + ([str(kind)] if kind else [])
    samples = " / ".join(f"{count:,}" for count in facts["samples"].values())
    return f"{', '.join(dict.fromkeys(parts))}; {samples} samples"


def spread(values: Sequence[float]) -> str:
    """The mean of one value per seed, with its 95 % interval: `0.738 [0.721, 0.755]`."""
    mean = estimate(values)
    if mean.interval is None:
        return f"{mean.mean:.3g}"
    low, high = mean.interval
    return f"{mean.mean:.3g} [{low:.3g}, {high:.3g}]"


def baseline_table(rows: Sequence[Row]) -> list[str]:
    """A row for each metric of each run, beside the simple methods that have it."""
    cells = []
    targets = {family: [parse_target(text) for text in TARGETS[family]] for family in TARGETS}
    for row in rows:
        if row.kind == "noise":
            continue
        open_targets = targets.pop(row.family, []) if row.kind == "real" else []
        for name in _shown(row):
            methods = []
            for method in row.baselines[0]:
                values = [
                    seed[method][name] for seed in row.baselines if name in seed.get(method, {})
                ]
                if values:
                    methods.append(f"{spread(values)}: {method}")
            goals = []
            for target in open_targets:
                if target.metric in (name, ABOVE):
                    reached = sum(map(target.is_reached, row.metrics))
                    goals.append(f"{target.text()}: {reached} of {len(row.metrics)} seeds")
            if methods or goals:
                model = spread([seed[name] for seed in row.metrics])
                beside = "; ".join(methods) or "–"
                line = f"`{row.command}`"
                cells.append([row.family, line, name, beside, model, "; ".join(goals) or "–"])
    heads = ["family", "command", "metric", "baselines", "default", "target"]
    return markdown(heads, cells)


def _shown(row: Row) -> list[str]:
    metrics = row.metrics[0]
    names = [name for name in SHOWN.get(row.family, ()) if name in metrics]
    return names or [next(iter(metrics))]


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
        texts = []
        for name in _shown(row):
            texts.append(f"{name} {spread([seed[name] for seed in row.metrics])}")
        found = ", ".join(texts)
        noise = controls.get(f"{row.command} {shlex.join(NOISE)}")
        control = "; ".join(noise.control) if noise else "–"
        cells.append(
            [row.family, f"`{row.command}`", f"{row.parameters:,}", row.data, found, control]
        )
    return markdown(heads, cells)


def run(family: str, kind: str, arguments: Arguments, samples: Path | None, seeds: int) -> Row:
    """Run the command line `arguments`, with each seed, and read the results."""
    shown = [_FILE.sub(lambda match: Path(match[1]).name, argument) for argument in arguments]
    given = [
        _FILE.sub(lambda match: str((samples or Path()) / match[1]), argument)
        for argument in arguments
    ]
    line = shlex.join(["python", "-m", "launcher", *shown])
    fields: list[dict[str, Any]] = []
    codes = []
    begin = time.perf_counter()
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run_folder = Path(folder) / "run"
            options = ["--seed", str(seed), "--out", str(run_folder)]
            done = subprocess.run(
                [sys.executable, "-m", "launcher", *given, *options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if not (run_folder / "result.json").exists():
                raise RuntimeError(f"{line} left no result:\n{done.stderr[-4000:]}")
            codes.append(done.returncode)
            fields.append(read(run_folder))
    seconds = (time.perf_counter() - begin) / seeds
    first = fields[0]
    return Row(
        family,
        kind,
        line,
        first["parameters"],
        first["data"],
        [each["metrics"] for each in fields],
        [each["baselines"] for each in fields],
        first["control"],
        max(codes),
        seconds,
    )


def _files(arguments: Arguments) -> list[str]:
    """The files below FOLDER that a run reads."""
    return [match[1] for match in map(_FILE.search, arguments) if match]


def runs(samples: Path | None) -> list[tuple[str, str, Arguments]]:
    """Family, kind and arguments of every run, by family."""
    found = []
    for family, real in RUNS.items():
        for arguments in real:
            found += [(family, "real", arguments), (family, "noise", [*arguments, *NOISE])]
        if samples is None:
            continue
        for arguments in SAMPLES[family]:
            missing = [name for name in _files(arguments) if not (samples / name).exists()]
            if missing:
                print(f"left out: {samples} has no {', '.join(missing)}", file=sys.stderr)
            else:
                found.append((family, "sample", arguments))
    return found


def main() -> int:
    """Run everything, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=Path, help="the folder with recordings")
    parser.add_argument("--seeds", type=int, default=3, help="runs on built-in data")
    parser.add_argument("--only", choices=RUNS, help="one family")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    rows = []
    if options.only and options.json and options.json.exists():
        # The other families keep their rows.
        _, _, saved = load_rows(options.json, Row)
        rows = [row for row in saved if row.family != options.only]
    for family, kind, arguments in runs(options.samples):
        if options.only in (None, family):
            seeds = options.seeds if kind == "real" else 1
            rows.append(run(family, kind, arguments, options.samples, seeds))
            print(f"{rows[-1].command}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    rows.sort(key=lambda row: [*RUNS].index(row.family))
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print("\n".join([*baseline_table(rows), "", *table(rows)]))
    if options.json:
        arguments = ["--samples", "FOLDER"] if options.samples else []
        save_rows(options.json, command("families", arguments), facts, rows)
    return int(any(row.exit_code for row in rows))


if __name__ == "__main__":
    sys.exit(main())
