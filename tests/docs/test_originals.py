"""The rows of the page about the originals, and all their words, have the stated effect."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.__main__ import main
from launcher.base.diagnostics import fold
from launcher.cli.parser import read as read_arguments
from launcher.config.foreign_words import OTHERS, SEVERAL, word_files
from launcher.config.options import OPTIONS as OPTIONS_HERE
from launcher.config.resolve import resolve
from scripts.write_docs import originals
from tests.docs.pages import ROOT, read
from tests.launcher.config.original_words import FILES, OPTIONS, lay_out
from tests.launcher.given import ONE_GPU, resolved
from tests.launcher.hub import cached
from tests.launcher.runs import trained
from tests.models.event_seg.writers import write_mvsec

PAGE = read(ROOT / "docs" / "originals.md")
_TABLE = re.compile(
    r"(?P<is_words><!-- table: originals several -->\n)?(?P<rows>(?:^\|.*\n)+)", re.M
)
_CODE = re.compile(r"`([^`]+)`")
NOTHING = "–: "
NAME = "indoor_flying1"
"""What users write for NAME."""


@dataclass(frozen=True)
class Row:
    """A row of a table: what the original has, and what is typed here."""

    original: str
    here: str
    family: str | None = None
    """Of a word; None: a command of the page."""

    @property
    def command(self) -> str:
        """The first command of the column `here`."""
        return _CODE.findall(self.here)[0]


def rows(lines: Iterable[str], family: str | None = None) -> Iterator[Row]:
    """The rows of a table, without its head."""
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        yield Row(cells[0], cells[-1], family)


COMMANDS = [
    row
    for table in _TABLE.finditer(PAGE.text)
    if not table["is_words"]
    for row in rows(table["rows"].splitlines()[2:])
]
WORDS = [
    row
    for family in word_files()
    if family != OTHERS
    for row in rows(originals(family)[2:], family)
]
_LANGUAGE = "--model language:full --resource-efficient"
EFFECTS: dict[str, dict[str, object]] = {
    "--model event_seg": {"mode": "default", "model.size": "full", "train.global_batch": 8},
    "--model event_seg --data mvsec/": {"data.path": "mvsec/"},
    "--model event_seg --lite --data mvsec/": {"data.mvsec_sequence": "outdoor_day1", "model.size": "lite"},
    "--model event_seg --lite --data mvsec/ --set data.mvsec_sequence=NAME": {"data.mvsec_sequence": NAME},
    "--model event_seg --set device=cpu": {"device": "cpu"},
    "resume runs/mine": {"model.family": "language", "model.size": "tiny"},
    "--model language:full": {"mode": "default", "train.global_batch": 64, "data.seq_len": 2048},
    _LANGUAGE: {"train.micro_batch": 4, "train.accumulation": 16, "limits.ram": 70},
    f"{_LANGUAGE} --config mine.yaml --download-data": {"download.fetch": True, "continual.enabled": False},
    f"{_LANGUAGE} --data notes/ --continuous-learning": {"continual.enabled": True, "data.path": "notes/"},
    f"{_LANGUAGE} --config mine.yaml --download-data --continuous-learning": {"download.fetch": True, "continual.enabled": True},
    "--model language:full --set limits.profile=mac": {"train.accumulation": 32, "data.seq_len": 256},
    "--model language:full --set limits.profile=cpu-only": {"device": "cpu", "limits.ram": 50},
    "--model abr --fast": {"train.global_batch": 128, "train.epochs": 50, "stop.patience": 8},
    "--model abr --ultra-fast": {"train.global_batch": 512, "train.epochs": 25, "stop.patience": 5},
    "--model abr --benchmark": {"train.epochs": 1, "train.timing": True, "train.global_batch": 128},
    "--model abr --fast --batch-size 128 --num-workers 12 --lr 0.0003": {"train.micro_batch": 128, "loader.workers": 12, "optim.lr": 3e-4},
    "--model abr --fast --num-workers 0": {"loader.workers": 0, "mode": "fast"},
    "--model abr --fast --track tensorboard": {"track": ["tensorboard"]},
    "--model doc_translation --data DoTA_dataset": {"data.path": "DoTA_dataset", "train.accumulation": 32},
    "--model doc_translation --mode conservative --data DoTA_dataset": {"train.micro_batch": 2, "train.accumulation": 16, "save.load_best": True},
    "--model doc_translation --set train.global_batch=128 --batch-size 4": {"train.global_batch": 128, "train.micro_batch": 4, "train.accumulation": 32},
    '--model doc_translation --set model.decoder_layers=3 --set "model.take_layers=[0, 2, 5]"': {"model.decoder_layers": 3, "model.take_layers": [0, 2, 5]},
    "--model eeg_text": {"mode": "default", "train.accumulation": 8, "train.epochs": 30},
    "--model eeg_text --stage encoder": {"stages": ["encoder"], "train.epochs": 10},
    "--model eeg_text --stage text --from runs/encoder": {"stages": ["text"], "model.encoder": "runs/encoder"},
    "--model eeg_text --mode staged": {"stages": ["encoder", "text"]},
    "--model eeg_text --track tensorboard": {"track": ["tensorboard"]},
    "--model event_seg:lite": {"model.size": "lite", "mode": "default"},
    "--model event_seg:lite-1M": {"model.size": "lite-1M"},
    '--model event_seg:lite --set "model.widths=[48, 96, 192]"': {"model.widths": [48, 96, 192]},
}  # fmt: skip
"""Settings that the command of a row has; tests/ds_configs/ has all values of the modes."""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with the data, files and runs that the page names."""
    lay_out(tmp_path)
    for name in ("outdoor_day1", "indoor_flying1"):
        (tmp_path / "mvsec").mkdir(exist_ok=True)
        write_mvsec(tmp_path / "mvsec" / f"{name}_data.hdf5", frames=3, per_frame=20)
    (tmp_path / "notes").mkdir()
    (tmp_path / "mine.yaml").write_text(
        f"download: {{files: ['file://{tmp_path}/chat.jsonl'], folder: notes}}\n"
    )
    trained(tmp_path / "runs" / "mine", resolved(), 100)
    encoder = resolved("stages=[encoder]", model="eeg_text", mode="staged")
    trained(tmp_path / "runs" / "encoder", encoder, 100)
    monkeypatch.chdir(tmp_path)
    cached(tmp_path / "hub", monkeypatch, "facebook/bart-base")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def test_a_command_of_the_page_has_its_effect(here, capsys):
    for row in COMMANDS:
        check_command(row, capsys)


def check_command(row, capsys):
    effects = EFFECTS[row.command]
    args = [re.sub(r"\bNAME\b", NAME, word) for word in shlex.split(row.command)]
    assert main([*args, "--dry-run", "--json"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    if "settings" not in plan:  # several stages
        plan["settings"] = {"stages": [stage["name"] for stage in plan["stages"]]}
    assert {key: setting(plan["settings"], key) for key in effects} == effects, row.command


def setting(tree: dict[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    return reduce(lambda section, name: section[name], key.split("."), tree)


@pytest.mark.parametrize("family", sorted({row.family for row in WORDS}))
def test_a_word_of_an_original_is_an_error_with_the_line_to_type(family, here, capsys):
    for row in WORDS:
        if row.family == family:
            check_word(row, capsys)


def check_word(row, capsys):
    for name in _CODE.findall(row.original):
        for family, value in values(name, row.family):
            typed = ["--model", family, "--set", f"{name}={value}"]
            assert main([*typed, "--dry-run"]) == 2, typed
            *_, last = capsys.readouterr().err.splitlines()
            fix = last.removeprefix("  fix").strip()
            if row.here.startswith(NOTHING):
                assert fix == f"remove it: {row.here.removeprefix(NOTHING)}", typed
            elif not fix.startswith("remove it: "):  # a switch that is off, or no value at all
                fetch, _, fix = fix.rpartition("  and then  ")
                assert option(fix) == option(row.command), typed
                if fetch:  # a model of the hub
                    continue
                again = read_arguments(["--model", family, *shlex.split(fix)])
                assert list(again.diagnostics) == [], typed
                resolve(again.args, ONE_GPU)


def values(name: str, family: str) -> list[tuple[str, str]]:
    """The families whose original has a word, and the value that its users give to it."""
    listed = {row.family for row in WORDS if f"`{name}`" in row.original} - {SEVERAL}
    having = [one for one in FILES if one not in listed] if family == SEVERAL else [family]
    found = [
        (one, value)
        for one in having
        for key, value in written(one)
        if f".{fold(key)}".endswith(f".{fold(name)}")
    ]
    assert found, f"no original has {name}"
    return found


def written(family: str) -> Iterator[tuple[str, str]]:
    """The settings and options of an original, each with its value as typed."""

    def inside(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield prefix + key, "null"
                yield from inside(value, f"{prefix}{key}.")
            else:
                yield prefix + key, f"[{', '.join(value)}]" if isinstance(value, list) else value

    yield from inside(yaml.load(FILES[family], Loader=yaml.BaseLoader), "")
    for typed in OPTIONS[family]:
        name, _, value = typed.removeprefix("--").partition(" ")
        yield name, value or "true"


def option(command: str) -> str:
    """The setting that a command sets, or else its option."""
    flag, value = shlex.split(command)[:2]
    keys = {option.flag: option.key for option in OPTIONS_HERE}
    return value.partition("=")[0] if flag == "--set" else keys[flag] or flag


def test_a_row_that_is_wrong_is_found(here, capsys):
    wrong = Row("`learning_rate`", "`--epochs …`", "abr")
    with pytest.raises(AssertionError):
        check_word(wrong, capsys)
    with pytest.raises(KeyError):
        check_command(Row("x", "`--model abr --lite`"), capsys)
