"""How many samples a second does each reader give, and how many does the model take?

    python -m benchmarks.data

Recordings are written first, in common formats, and read as a run reads them: by the
seeded order of the data, one process, no workers. The model of the named size then trains on
samples that are read already, on all cores. The ratio is the median over rounds: above 1 the reader
is faster than the model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import recordings
from benchmarks.figures import command, machine, markdown, save_rows
from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.launcher.config.schema import task_class
from gearshift.models.base import Context, Task, TracksProgress
from gearshift.training.accumulate import by_term
from gearshift.training.data.samples import DataOrder, MicroBatch, Samples
from gearshift.training.seeds import seed_weights

PACKAGES = ("torch", "numpy", "h5py", "mne", "pillow")
MICRO_BATCH = 4
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """One reader, the size of its model, and how its recording is made."""

    reader: str
    model: str
    write: Write | None = None
    """None: the family's embedded data."""
    sets: Sequence[str] = ()


def cases(scale: float) -> list[Case]:
    """All readers; `scale` shrinks the recordings."""

    def n(count: int) -> int:
        return max(1, int(count * scale))

    events = {"count": n(20_000_000), "last_us": 20_000_000}
    many, made = n(200) + 20, recordings
    return [
        Case("embedded", "event_seg:tiny"),
        Case(
            "MVSEC HDF5",
            "event_seg:lite",
            _file("a_data.hdf5", made.write_mvsec, n(20_000_000), 20),
        ),
        Case("EVT 2.0", "event_seg:lite", _file("a.raw", made.write_evt2, **events)),
        Case("EVT 3.0", "event_seg:lite", _file("a.raw", made.write_evt3, **events)),
        Case("embedded", "language:tiny"),
        Case("text", "language:tiny", _file("a.txt", made.write_text, n(50))),
        Case("JSONL", "language:tiny", _file("a.jsonl", made.write_conversations, n(50_000))),
        Case("embedded", "abr:tiny"),
        Case("table", "abr:tiny", _file("a.csv", made.write_table, n(2000) + 30, 5)),
        Case("embedded", "doc_translation:tiny"),
        Case("DoTA", "doc_translation:tiny", _file("dota", made.write_dota, n(100) + 20)),
        Case("embedded", "eeg_text:tiny"),
        Case("ZuCo 1.0", "eeg_text:tiny", _file("resultsA_NR.mat", made.write_zuco, many, 4.0)),
        Case("ZuCo 2.0", "eeg_text:tiny", _file("resultsB_NR.mat", made.write_zuco2, many, 4.0)),
    ]


def _file(name: str, write: Callable[..., Path], *arguments: float, **more: int) -> Write:
    return lambda folder: write(folder / name, *arguments, **more)


@dataclass(frozen=True)
class Row:
    """One reader beside the model of its family."""

    family: str
    reader: str
    bytes: int | None
    """Of the recording; None: there is none."""
    model: str
    setup_s: float
    read_per_s: float
    trained_per_s: float
    ratio: float
    rounds: int


def task_of(case: Case, path: Path | None) -> Task:
    """The task of a case with its data loaded; nothing is saved."""
    sets = [*case.sets, *([f"data.path={path}"] if path else [])]
    settings = resolve(CliArgs(model=case.model, sets=sets), detect_machine(), 1).settings
    context = Context(0, settings.eval.share, None, torch.device("cpu"))
    task = task_class(settings.model.family)(settings.model, settings.data, context)
    task.setup()
    return task


def measure(case: Case, folder: Path, rounds: int, seconds: float) -> Row:
    """Write the recording, then read and train in turns."""
    path = case.write(folder) if case.write else None
    begin = time.perf_counter()
    task = task_of(case, path)
    setup_s = time.perf_counter() - begin
    split = task.data("train")
    samples = Samples(task, split, 0)
    reading = _Reading(samples, DataOrder(len(split), min(MICRO_BATCH, len(split)), 0))
    training = _Training(task, [reading.next() for _ in range(4)])
    pairs = []
    for number in range(rounds + 1):  # the first one warms up
        pair = _rate(reading.next, seconds), _rate(training.step, seconds)
        pairs += [pair] if number else []
    read, trained = (statistics.median(side) * reading.batch for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    family = case.model.partition(":")[0]
    size = _bytes(path) if path else None
    return Row(family, case.reader, size, case.model, setup_s, read, trained, ratio, rounds)


class _Reading:
    """Micro-batches in the order of a run, endlessly."""

    def __init__(self, samples: Samples, order: DataOrder) -> None:
        self.samples, self.order, self.at, self.batch = samples, order, 0, order.global_batch

    def next(self) -> MicroBatch:
        epoch, indices = self.order.batch(self.at)
        self.at += 1
        found = self.samples[epoch, indices.tolist()]
        if isinstance(found, Exception):
            raise found
        return found


class _Training:
    """Training steps on micro-batches in memory."""

    def __init__(self, task: Task, batches: Sequence[MicroBatch]) -> None:
        self.task, self.batches, self.at = task, batches, 0
        if isinstance(task, TracksProgress):
            task.set_progress(1.0, 1.0)  # every term of the loss counts
        seed_weights(0)
        self.model = task.build().train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(self) -> None:
        micro_batch = self.batches[self.at % len(self.batches)]
        self.at += 1
        sums = by_term(self.task.loss(self.model, micro_batch.batch).sum)
        units = by_term(micro_batch.num_units)
        self.optimizer.zero_grad()
        torch.stack([sums[term] / max(1, units[term]) for term in units]).sum().backward()
        self.optimizer.step()


def _rate(action: Callable[[], object], seconds: float) -> float:
    """Calls of `action` per second."""
    begin, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begin) < seconds:
        action()
        count += 1
    return count / taken


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as the lines of a Markdown table."""
    cells = []
    for row in rows:
        size = "–" if row.bytes is None else f"{row.bytes / 2**20:.0f} MiB"
        rates = [f"{row.read_per_s:,.0f}", f"{row.trained_per_s:,.1f}", f"{row.ratio:.1f}"]
        cells.append([row.family, row.reader, row.model, size, f"{row.setup_s:.1f} s", *rates])
    heads = [
        "family",
        "reader",
        "model",
        "recording",
        "setup",
        "samples/s read",
        "samples/s trained",
    ]
    return markdown([*heads, "ratio"], cells, numbers=5)


def main() -> None:
    """Measure every reader, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side of a round")
    parser.add_argument("--scale", type=float, default=1.0, help="of the recordings")
    parser.add_argument("--only", help="one family")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    rows = []
    for case in cases(options.scale):
        if options.only in (None, case.model.partition(":")[0]):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(case, Path(folder), options.rounds, options.seconds))
            print(f"{case.model}: {case.reader}", file=sys.stderr, flush=True)
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print("\n".join(table(rows)))
    if options.json:
        save_rows(options.json, command("data", sys.argv[1:]), facts, rows)


if __name__ == "__main__":
    main()
