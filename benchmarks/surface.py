"""What a command line shows, recorded at one commit and compared at another on the same machine.

    python -m benchmarks.surface --write before.json
    python -m benchmarks.surface --against before.json

For every family, mode and engine: each resolved setting with its origin, and the rest of a dry run.
For every command its help. For wrong values of every setting, and wrong options of every command:
exit code, key and where of each error, never its text. Losses are those of benchmarks/golden.py.
Exit code 1 where something differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.__main__ import main as launch
from gearshift.launcher.config import presets
from gearshift.launcher.config.commands import COMMANDS
from gearshift.models.catalog import FAMILIES

WRONG = ("odd", "-1", "1e18", "[1]", "{a: 1}")
"""Values that few settings have."""
LINES = (
    "--modle abr", "--model abr:tinny", "--model nothing", "--mode slow", "--engine zero9",
    "--nproc 0", "--nproc x", "--epochs", "--lr fast", "--set", "--set lr=1", "--set train.lr=1",
    "--config none.yaml", "--config odd.yaml", "--config odd.json", "--data none", "--data empty",
    "--data odd.yaml --model abr", "--resume none", "resume", "resume none", "evaluate none",
    "predict none --input x", "verify none", "export none", "report none", "compare --modes slow",
    "plan --gpus x", "data check", "data check none", "data fetch", "list nothing", "nothing",
    "submit --nodes x", "new-task", "explain nothing", "completion nothing", "watch none",
)  # fmt: skip
"""Wrong command lines, beside those that are made of settings and commands."""
FILES = {"odd.yaml": "train:\n  lr: 1\n", "odd.json": '{"train": {"epochs": "x"}}', "empty": ""}


def shown(*words: str) -> tuple[int, Any]:
    """Exit code of a command line, and its output: parsed, if that is JSON."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = launch(words)
        except Exception as error:  # a traceback for the user
            return -1, f"{type(error).__name__}: {error}"
    try:
        return code, json.loads(out.getvalue())
    except ValueError:
        return code, out.getvalue()


def error(*words: str) -> list[Any]:
    """Exit code of a command line, and key and where of each of its errors."""
    code, found = shown("--json", *words)
    if not isinstance(found, dict):
        return [code, found if code == -1 else None]
    places = [[d["key"], d["where"]] for d in found.get("diagnostics", ())]
    return [code, *places]


def surface() -> Iterator[tuple[str, Any]]:
    """The name of each command line, and what it shows."""
    for command in COMMANDS:
        yield f"{command} --help", shown(command, "--help")
    names: dict[str, str] = {}
    for family, mode, engine in itertools.product(FAMILIES, presets.modes(), ENGINES):
        words = ["--model", f"{family}:tiny", "--mode", mode, "--engine", engine]
        code, settings = shown("explain", *words, "--out", "run", "--json")
        for name in settings if code == 0 else ():
            names.setdefault(name, family)
        yield " ".join(["explain", *words]), [code, settings]
        yield " ".join(words), shown(*words, "--out", "run", "--dry-run", "--json")
    for (name, family), value in itertools.product(names.items(), WRONG):
        words = ["--model", f"{family}:tiny", "--set", f"{name}={value}", "--dry-run"]
        yield " ".join(words), error(*words)
    for command in COMMANDS:
        yield f"{command} --nothing", error(command, "--nothing")
    for line in LINES:
        yield line, error(*line.split(), *(["--dry-run"] if line.startswith("--") else []))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The scalars of nested dictionaries and lists, by their path."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for n, one in items for k, v in leaves(one, f"{path}/{n}").items()}
    return {path: value}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for each leaf that differs."""
    old, new = leaves(before), leaves(after)
    return [
        f"{name}: {old.get(name, 'absent')!r} -> {new.get(name, 'absent')!r}"
        for name in sorted({*old, *new})
        if old.get(name, "absent") != new.get(name, "absent")
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the surface to a file, or compare it with that of a file; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--against", type=Path, metavar="FILE")
    parser.add_argument("--most", type=int, default=200, help="lines that are printed")
    options = parser.parse_args(argv)
    paths = [path and path.resolve() for path in (options.write, options.against)]
    # What depends on the folder or the time of a run is the same in each recording.
    os.environ |= {"COLUMNS": "100", "HOME": "/nonexistent"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "surface"
        place.mkdir()
        for name, text in FILES.items():
            (place / name).write_text(text)
        os.chdir(place)
        found = json.loads(json.dumps(dict(surface())).replace(folder, "FOLDER"))
        os.chdir("/")
    if paths[0]:
        paths[0].write_text(json.dumps(found, indent=0))
    lines = differences(json.loads(paths[1].read_text()), found) if paths[1] else []
    print("\n".join(lines[: options.most]))
    print(f"{len(found)} command lines; {len(lines)} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
