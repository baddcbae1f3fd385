"""The rows of the page about the originals have the stated effect."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from launcher.__main__ import main
from launcher.config.options import OPTIONS, names
from tests.docs.pages import ROOT, read
from tests.launcher.given import resolved
from tests.launcher.runs import trained
from tests.models.event_seg.writers import write_mvsec

PAGE = read(ROOT / "docs" / "originals.md")
_TABLE = re.compile(r"(?:^\|.*\n)+", re.M)
_CODE = re.compile(r"`([^`]+)`")
NAME = "indoor_flying1"
"""What users write for NAME."""


@dataclass(frozen=True)
class Row:
    """A row of a table: what the original has, and what is typed here."""

    original: str
    here: str

    @property
    def command(self) -> str:
        """The first command of the column `here`."""
        return _CODE.findall(self.here)[0]


def rows(table: str) -> Iterator[Row]:
    """The rows of a table, without its head."""
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        yield Row(cells[0], cells[-1])


*TABLES, _WORDS = (list(rows(table)) for table in _TABLE.findall(PAGE.text))
COMMANDS = [row for table in TABLES for row in table]
WORDS = [row for row in _WORDS if not row.here.startswith("–: ")]
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
    (tmp_path / "DoTA_dataset" / "imgs").mkdir(parents=True)
    for name in ("DoTA_dataset/split_dataset.json", "DoTA_dataset/imgs/2101.00001_1.png"):
        (tmp_path / name).touch()
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


def test_a_word_of_the_page_has_an_option_or_a_setting_here():
    assert [row for row in WORDS if not exists(row.command)] == []


def exists(command: str) -> bool:
    """Whether the option of a command exists, or the setting that it sets."""
    flag, value = shlex.split(command)[:2]
    key = value.partition("=")[0]
    return key in names("keys") if flag == "--set" else flag in {o.flag for o in OPTIONS}


def test_a_row_that_is_wrong_is_found(here, capsys):
    assert not exists("--epoch 3") and not exists("--set optim.rl=…")
    with pytest.raises(KeyError):
        check_command(Row("x", "`--model abr --lite`"), capsys)
