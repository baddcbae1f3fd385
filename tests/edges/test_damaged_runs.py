"""A run folder of a stranger or a damaged disk: a command reads it, or ends with an error of its own."""

import json
import random
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.run_folder import run_folder
from gearshift.training.logging.metrics import EventsWriter, MetricsWriter
from gearshift.training.storage import Storage
from tests.launcher.given import resolved
from tests.launcher.runs import ended, trained
from tests.training.facts import evaluation, logged, train_plan

MUTATIONS = 80
VALUES = (
    None,
    [],
    {},
    "x",
    "",
    -1,
    0,
    2**63,
    10**400,
    1e300,
    True,
    [[1]],
    {"a": [1]},
    "9" * 5000,
    "\0",
    "..",
)
"""What a value is replaced by."""
WHOLE = (
    b"",
    b"null",
    b"[]",
    b"3",
    b"{}",
    b"[" * 10**5,
    b"\xff\xfe",
    b"0x" + b"f" * 5000,
    b'{"a": 1e999}',
)
"""What a file is replaced by."""
FILES = (
    run_folder.RESULT,
    run_folder.METRICS,
    run_folder.EVENTS,
    "origins.json",
    "settings.yaml",
    "split.json",
    "checkpoints/step-00000010/manifest.json",
    "checkpoints/step-00000010/state.json",
)
COMMANDS = (
    ("watch", "run", "--once"),
    ("watch", "run", "--json"),
    ("report", "run", "--out", "report.html"),
    ("resume", "run", "--dry-run"),
    ("explain", "--config", "run/settings.yaml"),
    ("submit", "--dry-run", "--resume", "run"),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with lines and events, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = ended(trained(Path("run"), resolved(), 10), "completed", 10)
    (folder / "split.json").write_text(
        json.dumps({"digest": "1", "train": ["a"], "val": ["b"], "test": ["c"]})
    )
    for writer in (MetricsWriter(Storage(folder)), EventsWriter(Storage(folder))):
        writer.start(train_plan())
        writer.logged(logged(10))
        writer.evaluated(evaluation(10))
    return folder


def places(tree, path=()):
    """The path to each value of a tree of JSON."""
    entries = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def replaced(text, draw):
    """JSON with another value somewhere, or without one."""
    tree = json.loads(text)
    *above, last = draw.choice([*places(tree)])
    inner = tree
    for key in above:
        inner = inner[key]
    value = draw.choice(VALUES)
    if draw.random() < 0.2:
        del inner[last]
        return json.dumps(tree)
    inner[last] = 0 if value == 10**400 else value
    return (
        json.dumps(tree).replace(": 0", f": {'9' * 400}") if value == 10**400 else json.dumps(tree)
    )


def mutated(content, suffix, draw):
    kind = draw.choice(("cut", "whole", "flip", "value", "value", "value"))
    if kind == "cut":
        return content[: draw.randrange(len(content))]
    if kind == "whole":
        return draw.choice(WHOLE)
    lines = content.splitlines()
    number = draw.randrange(len(lines))
    if kind == "flip":
        lines[number] = bytes(255 - byte for byte in lines[number])
    elif suffix == ".json":
        return replaced(content, draw).encode()
    elif suffix == ".jsonl":
        lines[number] = replaced(lines[number], draw).encode()
    else:
        lines[number] = lines[number].partition(b":")[0] + f": {draw.choice(VALUES[:8])}".encode()
    return b"\n".join([*lines, b""])


@pytest.mark.slow
def test_no_command_ends_with_a_traceback(run, capsys):
    draw = random.Random(0)
    inside = {path for path in Path().iterdir()} | {Path("report.html")}
    for _ in range(MUTATIONS):
        path = run / draw.choice(FILES)
        content = path.read_bytes()
        path.write_bytes(mutated(content, path.suffix, draw))
        for command in COMMANDS:
            assert main([*command]) in (0, 1, 2), (path, path.read_bytes()[:500], command)
            capsys.readouterr()
        path.write_bytes(content)
    assert {path for path in Path().iterdir()} <= inside
