"""The rows of the page about the originals name commands, options and settings that exist.

tests/ds_configs has the values of the modes.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.config.command_line import OPTIONS
from gearshift.launcher.config.input_errors import names
from tests.docs.pages import ROOT, read
from tests.launcher.given import resolved
from tests.launcher.runs import trained
from tests.models.event_seg.writers import write_mvsec

NAME = "indoor_flying1"
"""What users write for NAME."""


def commands(table: str) -> list[str]:
    """The first command of each row, in the last column."""
    cells = [line.strip("|").split(" | ")[-1] for line in table.splitlines()[2:]]
    return [
        found[1] for cell in cells if (found := re.search("`([^`]+)`", cell)) and "–:" not in cell
    ]


PAGE = read(ROOT / "docs" / "originals.md").text
*TABLES, WORDS = map(commands, re.findall(r"(?:^\|.*\n)+", PAGE, re.M))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with the data, files and runs that the page names."""
    (tmp_path / "DoTA_dataset" / "imgs").mkdir(parents=True)
    for name in ("DoTA_dataset/split_dataset.json", "DoTA_dataset/imgs/2101.00001_1.png"):
        (tmp_path / name).touch()
    for name in ("mvsec", "notes"):
        (tmp_path / name).mkdir()
    for name in ("outdoor_day1", NAME):
        write_mvsec(tmp_path / "mvsec" / f"{name}_data.hdf5", frames=3, per_frame=20)
    (tmp_path / "mine.yaml").write_text(f"download: {{files: ['file://{tmp_path}/chat.jsonl']}}\n")
    trained(tmp_path / "runs" / "mine", resolved(), 100)
    encoder = resolved("stages=[encoder]", model="eeg_text", mode="staged")
    trained(tmp_path / "runs" / "encoder", encoder, 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def test_every_command_of_the_page_starts(here, capsys):
    found = [command for table in TABLES for command in table]
    assert len(found) > 30
    for command in found:
        args = [re.sub(r"\bNAME\b", NAME, word) for word in shlex.split(command)]
        assert main([*args, "--dry-run"]) == 0, capsys.readouterr().err


def exists(command: str) -> bool:
    """Whether the option of a command exists, or the setting that it sets."""
    flag, value = shlex.split(command)[:2]
    key = value.partition("=")[0]
    return key in names("keys") if flag == "--set" else flag in {o.flag for o in OPTIONS}


def test_a_word_of_the_page_has_an_option_or_a_setting_here():
    assert len(WORDS) > 25 and [command for command in WORDS if not exists(command)] == []
    assert not exists("--epoch 3") and not exists("--set optim.rl=…")
