"""Does `verify A --against B` name why two runs differ? 24 causes, planted one by one.

    python -m benchmarks.differences
    python -m benchmarks.differences --only "one weight"

Pairs of runs of 8 steps: a small custom task with dropout and a buffer, and `language:tiny` on a
file of requests. Three pairs are to be equal, bit by bit. A cause counts as named if its kind, its
key and what differs first are as planted. Exits 1 if one is not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save

from benchmarks.figures import command, machine, markdown, save_rows
from gearshift.launcher.__main__ import main as launch
from gearshift.training.checkpoint import manifest

sys.dont_write_bytecode = True  # two sources within a second may be of one size
SMALL = "small:Small"
LANGUAGE = "language:tiny"
_STEPS = 8
_SETTINGS = (
    *("engine.threads=1", "eval.last=false", "log.every=1", "save.every=2", "save.keep_last=9"),
    *("train.global_batch=4", "train.micro_batch=4", "train.preview=false"),
    "report.enabled=false",
)
TASK = '''\
"""A small task with dropout and a buffer."""

import json
import time

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from gearshift import CustomTask


class Layers(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.first = nn.Linear(256, width)
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 1)
        self.register_buffer("scale", torch.ones(1))
        self.rng = np.random.default_rng(0)

    def forward(self, values):
        hidden = self.drop(torch.relu(self.first(values)))
        return self.last(self.norm(hidden)) * self.scale


class Small(CustomTask):
    class Model(BaseModel):
        width: int = 512
        dropout: float = 0.1

    class Data(BaseModel):
        path: str = "values.json"

    def samples(self, split):
        values = json.load(open(self.data_settings.path))
        count = len(values) * 3 // 4
        chosen = values[:count] if split == "train" else values[count:]
        return [(torch.full((256,), x).cumsum(0) / 256, float(x > 0)) for x in chosen]

    def build(self):
        return Layers(self.model_settings.width, self.model_settings.dropout)

    def measure(self, model, batch):
        error = model(batch["input"]).squeeze(1) - batch["target"].float()
        return {"loss": error.square().sum()}
'''
VALUES = [((7 * n) % 23 - 11) / 11 for n in range(80)]
_OTHER = [*VALUES[:27], 0.7, *VALUES[28:]]
"""Another value of sample 27, which is of step 2."""
_LINES = [f'{{"prompt": "what is {n}", "response": "{n}"}}' for n in range(80)]
_BAD = [*_LINES[:40], '{"prompt": 1}', *_LINES[41:]]
_SAME = ("", "")
_OWN_DRAWS = ("torch.relu(self.first(values))", "self.first(values) * self.rng.uniform(0.9, 1.1)")
_UNSET = ("torch.ones(1))", "torch.ones(1) * (time.time_ns() % 1000))")

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Planted:
    """A cause, and what is to be named."""

    name: str
    kind: str = ""
    """Of the cause; empty: none, the runs are equal."""
    key: str = ""
    """How its key ends."""
    first: Sequence[str] = ()
    """The kinds of what may differ first."""
    place: str = ""
    """What the name of it has."""
    model: str = SMALL
    base: Sequence[str] = ()
    """Options of the first run."""
    options: Sequence[str] = ()
    """Of the second run."""
    both: Sequence[str] = ()
    both_edit: tuple[str, str] = _SAME
    """A text of the task's source, and what both have instead."""
    edit: tuple[str, str] = _SAME
    """The same of the second run."""
    data: str | None = None
    """Of the second run."""
    resumes_at: int | None = None
    """The second run is stopped at this step and resumed."""
    after: Change | None = None
    """What is done to the second run."""
    rounding: bool | None = False
    """Whether it is within the bound of rounding; None: either."""


def _edited(key: str) -> Change:
    """Change one element in the checkpoint of step 4, and resume from it."""

    def change(run: Path) -> None:
        folder = run / "checkpoints" / "step-00000004"
        path = folder / "rank-00000.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        tensors[key][3] += 0.01
        _replace(path, save(tensors, metadata))
        _call(run.parent, "resume", str(folder))

    return change


def _replace(path: Path, content: bytes, libraries: Mapping[str, str] | None = None) -> None:
    """Replace a file of a checkpoint, with its checksum in the manifest."""
    before = manifest.read(path.parent)
    path.unlink()
    file = manifest.write_file(path, [content])
    files = tuple(file if old.name == path.name else old for old in before.files)
    after = replace(before, files=files, libraries=libraries or before.libraries)
    names = (manifest.NAME, manifest.CHECKSUM_NAME)
    for name, data in zip(names, manifest.render(after), strict=True):
        (path.parent / name).write_bytes(data)


def _other_torch(run: Path) -> None:
    """As if another version of torch had computed steps 5 to 8 with another last bit."""
    for folder in sorted((run / "checkpoints").iterdir()):
        path = folder / manifest.STATE
        state = json.loads(path.read_text())
        state["facts"]["surroundings"]["package"]["torch"] = "2.9.0"
        libraries = {**manifest.read(folder).libraries, "torch": "2.9.0"}
        _replace(path, json.dumps(state).encode(), libraries)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines[4:]:
        line["loss"] *= 1 + 1e-7
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _set(text: str) -> tuple[str, str]:
    return ("--set", text)


PLANTED = (
    Planted("nothing"),
    Planted("another path of the same data", data="same/values.json"),
    Planted("a setting that changes no number", options=_set("save.keep_last=5")),
    Planted("a sample", "data", "data.path", ("sample",), "27", data="other/values.json"),
    Planted("another data file", "data", "data.path", ("sample",), data="new.json"),
    Planted("the seed", "seed", "train.seed", ("weight",), options=("--seed", "1")),
    Planted(
        "the order of samples",
        *("source", "small", ("train",)),
        edit=("for x in chosen]", "for x in chosen[::-1]]"),
    ),
    Planted(
        "the global batch",
        *("setting", "train.global_batch", ("sample",)),
        options=_set("train.global_batch=8"),
    ),
    Planted(
        "a bad record, skipped",
        *("data", "data.path", ("sample",)),
        model=LANGUAGE,
        data="other/requests.jsonl",
        options=_set("data.on_bad=skip"),
    ),
    Planted(
        "the learning rate",
        *("setting", "optim.lr", ("lr",)),
        base=("--lr", "1e-3"),
        options=("--lr", "9e-4"),
    ),
    Planted(
        "the schedule",
        *("setting", "schedule.name", ("lr",)),
        options=_set("schedule.name=constant"),
    ),
    Planted(
        "weight decay",
        *("setting", "optim.weight_decay", ("weight",)),
        options=_set("optim.weight_decay=0.2"),
    ),
    Planted(
        "clipping",
        *("setting", "optim.clip_norm", ("exp_avg",)),
        options=_set("optim.clip_norm=0.01"),
    ),
    Planted(
        "the precision",
        *("setting", "precision", ("output",), "first"),
        options=("--precision", "bf16"),
        rounding=None,
    ),
    Planted(
        "the attention kernel",
        *("setting", "memory.attention", ("output", "gradient")),
        model=LANGUAGE,
        options=_set("memory.attention=math"),
        rounding=None,
    ),
    Planted(
        "a dropout layer",
        *("setting", "model.dropout", ("output",), "drop"),
        options=_set("model.dropout=0.2"),
    ),
    Planted(
        "a size in the source",
        *("source", "small", ("train",)),
        edit=("nn.Linear(256, width)", "nn.Linear(256, width, bias=False)"),
    ),
    Planted(
        "a loss in the source",
        *("source", "small", ("train",)),
        edit=("error.square().sum()", "error.abs().sum()"),
    ),
    Planted(
        "a layer in the source",
        *("source", "small", ("train",)),
        edit=("self.norm(hidden)", "self.norm(hidden.neg())"),
    ),
    Planted(
        "one weight",
        *("state", "step-00000004", ("weight",), "last.weight"),
        after=_edited("weight|last.weight|0"),
    ),
    Planted(
        "the optimizer's state",
        *("state", "step-00000004", ("exp_avg",), "norm.weight"),
        after=_edited("exp_avg|norm.weight|0"),
    ),
    Planted("an unset buffer", "unset", "scale", ("buffer",), "scale", both_edit=_UNSET),
    Planted(
        "random state lost in a resume",
        *("resume", "4", ("draw",), "rng"),
        both_edit=_OWN_DRAWS,
        resumes_at=4,
    ),
    Planted("another torch", "package", "torch", ("train",), after=_other_torch),
    Planted(
        "threads",
        *("threads", "threads", ("output", "gradient")),
        both=(
            *_set("model.width=4096"),
            *_set("train.global_batch=32"),
            *_set("train.micro_batch=32"),
        ),
        options=_set("engine.threads=2"),
        rounding=True,
    ),
    Planted(
        "the engine",
        *("setting", "engine.name", ("train",)),
        options=("--engine", "zero1", "--nproc", "1"),
        rounding=True,
    ),
    Planted(
        "the world size",
        *("setting", "engine.nproc", ("train",)),
        model=LANGUAGE,
        base=("--engine", "ddp"),
        options=("--engine", "ddp", "--nproc", "2"),
        rounding=True,
    ),
)


@dataclass(frozen=True)
class Row:
    """A planted cause, and what was named."""

    planted: str
    first: str
    """What differs first."""
    cause: str
    is_right: bool
    problems: Sequence[str] = field(default_factory=list)


def _call(folder: Path, *words: str, code: int = 0) -> tuple[int, str]:
    """Run a command in this process: its exit code, and what it prints.

    Its ranks are processes of their own. Raises RuntimeError if the exit code is above `code`.
    """
    sys.modules.pop("small", None)  # its source may have changed
    paths = list(sys.path)
    printed = io.StringIO()
    errors = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    with redirect_stdout(printed), redirect_stderr(errors):
        done = launch(list(words))
    os.chdir(before)
    sys.path[:] = paths
    if done > code:
        raise RuntimeError(f"{' '.join(words)}: {errors.getvalue()[-3000:]}")
    return done, printed.getvalue()


def _train(planted: Planted, home: Path, name: str) -> None:
    """One of two runs in `home`; `name`: a or b."""
    is_second = name == "b"
    source = TASK.replace(*planted.both_edit)
    if is_second:
        source = source.replace(*planted.edit)
    files = {
        "small.py": source,
        "new.json": json.dumps(_OTHER),
        "requests.jsonl": "\n".join(_LINES),
        "other/requests.jsonl": "\n".join(_BAD),
        "values.json": json.dumps(VALUES),
        "same/values.json": json.dumps(VALUES),
        "other/values.json": json.dumps(_OTHER),
    }
    home.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(text)
    data = "values.json" if planted.model == SMALL else "requests.jsonl"
    words = ["--model", planted.model, "--max-steps", str(_STEPS), "--out", name]
    words += ["--data", (is_second and planted.data) or data]
    typed = [*planted.both, *(planted.options if is_second else planted.base)]
    for setting in _SETTINGS:
        if setting.partition("=")[0] not in {word.partition("=")[0] for word in typed}:
            words += _set(setting)
    words += typed
    if is_second and planted.resumes_at is not None:
        words += _set(f"stop.after={planted.resumes_at}")
    _call(home, *words)
    if is_second and planted.resumes_at is not None:
        _call(home, "resume", name, *_set("stop.after=null"))
    if is_second and planted.after is not None:
        planted.after(home / name)


def measure(planted: Planted, home: Path) -> Row:
    """Train the second run in `home`, the first one if it is not there, and compare them."""
    shutil.rmtree(home / "b", ignore_errors=True)
    if not (home / "a").exists():
        _train(planted, home, "a")
    _train(planted, home, "b")
    code, printed = _call(home, "verify", "a", "--against", "b", "--json", code=1)
    result: dict[str, Any] = json.loads(printed)
    first = result["first_difference"]
    cause = result["cause"]
    if first is None:
        is_right = result["identical"] and code == 0 and not planted.kind
        return Row(planted.name, "–", "equal, bit by bit", is_right, result["notes"])
    is_right = (
        code == 1
        and cause["kind"] == planted.kind
        and cause["key"].endswith(planted.key)
        and first["kind"] in planted.first
        and planted.place in first["name"]
        and planted.rounding in (None, result["rounding"])
    )
    element = first["index"] or ""
    shown = f"step {first['step']}: {first['kind']} {first['name']}{element}".strip()
    key = str(cause["key"]).removeprefix(f"{home}/")
    named = cause["kind"] if key == cause["kind"] else f"{cause['kind']}: {key}"
    if result["rounding"]:
        named += ", within rounding"
    return Row(planted.name, shown, named, is_right, [] if is_right else [printed])


def table(rows: Sequence[Row]) -> list[str]:
    """A row for each cause, as the lines of a Markdown table."""
    heads = ["planted", "named first", "cause", "right"]
    cells = ([r.planted, r.first, r.cause, "✓" if r.is_right else "✗"] for r in rows)
    return markdown(heads, cells)


def main() -> int:
    """Measure all, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="the planted cause")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="gearshift-differences-") as folder:
        for planted in PLANTED:
            if options.only not in (None, planted.name):
                continue
            first = (planted.model, planted.base, planted.both, planted.both_edit)
            try:
                row = measure(planted, Path(folder, str(abs(hash(first))), "runs"))
            except RuntimeError as error:
                row = Row(planted.name, "–", "–", False, [str(error)])
            rows.append(row)
            if options.json:
                facts = machine(("torch",))
                save_rows(options.json, command("differences", sys.argv[1:]), facts, rows)
            print("right" if row.is_right else "WRONG", row.planted, *row.problems, flush=True)
    print("\n".join(table(rows)))
    return 0 if all(row.is_right for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
