"""First guesses: words that are no command, option or model get the line that was meant."""

import json
import shlex
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli.parser import read
from tests.launcher.given import resolved
from tests.launcher.hub import cached
from tests.launcher.runs import trained

PROGRAM = "python -m launcher"
RUN = "runs/mine"
SHOWN = (
    "class Task:\n"
    "    def samples(self, split): ...\n"
    "    def build(self): ...\n"
    "    def measure(self, model, batch): ...\n"
)
HUB = ("gpt2", "facebook/bart-base", "OWNER/llama", "HuggingFaceTB/SmolLM2-135M@v1.0", "a/b@x")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a run, data, a pretrained model, and scripts with and without a task."""
    monkeypatch.chdir(tmp_path)
    trained(Path(RUN), resolved(), 10)
    for folder, kind in (("my_model", "llama"), ("my_bart", "bart")):
        Path(folder).mkdir()
        config = {"model_type": kind, "max_position_embeddings": 2048}
        Path(folder, "config.json").write_text(json.dumps(config))
    cached(tmp_path / "hub", monkeypatch, *HUB)
    Path("mine.jsonl").write_text(json.dumps({"text": "a line of text"}) + "\n")
    Path("train.py").write_text("print('a script of another tool')\n")
    Path("mine.yaml").write_text("optim:\n  lr: 1e-3\n")
    return tmp_path


def only_error(typed):
    """The fix of the only error of a command line."""
    found = read(shlex.split(typed)).diagnostics
    assert len(found) == 1, [diagnostic.message for diagnostic in found]
    return found[0].fix or ""


COMMANDS = {
    "rnu --epochs 3": f"{PROGRAM} run --epochs 3",
    "trian": f"{PROGRAM} train",
    "hlep": f"{PROGRAM} help",
    f"evalute {RUN}": f"{PROGRAM} evaluate {RUN}",
    "mine.jsonl": "",
    "optim.lr=1e-3": "",
}


def starts(line):
    """Whether a line of the program can start; of a run, with --dry-run."""
    argv = shlex.split(line.partition("  ")[0])
    command_line = read(argv[3:])
    assert not command_line.diagnostics
    return command_line.command.name != "run" or main([*argv[3:], "--dry-run"]) == 0


def test_a_first_word_that_is_no_command_gets_the_nearest_one(home, capsys):
    assert {typed: only_error(typed) for typed in COMMANDS} == COMMANDS
    assert [line for line in COMMANDS.values() if line and not starts(line)] == []
    unknown, missing = read(["evalute"]).diagnostics  # the line alone would not start
    assert (unknown.did_you_mean, unknown.fix) == ("evaluate", None)
    assert missing.fix == f"{PROGRAM} evaluate {RUN}"
    assert main(["rnu", "--zzz", "3"]) == 2
    assert capsys.readouterr().err.count("error:") == 2


OPTIONS_HERE = {
    "--optim.lr=1e-3": "--set optim.lr=1e-3",
    "--model eeg_text --freeze_encoder": "--set model.freeze_encoder=true",
    "--batch_size 4": "--batch-size 4",
    "--zero2": "--engine zero2",
    "--tiny": "--model language:tiny",
    "--lite optim.lr=1e-3": "--set optim.lr=1e-3",
    "data check mine.jsonl --seed 3": "--set train.seed=3",
    "data check mine.jsonl --lr 1e-3": "--set optim.lr=1e-3",
}


def test_a_name_of_ours_that_is_no_option_gets_its_option(home):
    assert {typed: only_error(typed) for typed in OPTIONS_HERE} == OPTIONS_HERE
    for typed, line in OPTIONS_HERE.items():
        family = "--model eeg_text " if "freeze_encoder" in line else ""
        assert starts(f"{PROGRAM} {family}{line}"), typed


MODELS = {
    "./my_model": "--set model.pretrained=my_model",
    "my_model/config.json": "--set model.pretrained=my_model",
    "my_bart": "--model eeg_text --set model.pretrained=my_bart",
    "gpt2": "--set model.pretrained=hf:gpt2",
    "facebook/bart-base": "--model eeg_text --set model.pretrained=hf:facebook/bart-base",
    "HuggingFaceTB/SmolLM2-135M:v1.0": "--set model.pretrained=hf:HuggingFaceTB/SmolLM2-135M@v1.0",
    "https://huggingface.co/a/b/tree/x": "--set model.pretrained=hf:a/b@x",
    "hf:a/b@x": "--set model.pretrained=hf:a/b@x",
    "llama": "--set model.pretrained=hf:OWNER/llama",
    "shown.Task": "--model shown:Task",
    "shown": "--model shown:Task",
    "train.py": f"{PROGRAM} new-task train_task  and move the model and the data of train.py there",
    "shown.py": "--model shown:Task",
    "./my_modle": "--set model.pretrained=my_model",
    "tiny": "--model language:tiny",
    "zero2": "--engine zero2",
    "mine.jsonl": "--data mine.jsonl",
    RUN: f"--resume {RUN}",
}


def printed_fix(capsys, *argv):
    """The fix that is printed with the only error of a command line."""
    assert main([*argv]) == 2
    printed = capsys.readouterr().err
    assert printed.count("error:") == 1, argv
    return printed.partition("  fix           ")[2].partition("\n")[0]


def test_a_model_that_is_none_gets_one_line(home, capsys):
    Path("shown.py").write_text(SHOWN)
    assert {name: printed_fix(capsys, "--model", name) for name in MODELS} == MODELS
    for name, line in MODELS.items():
        if line.startswith("--") and not name.startswith("shown"):
            assert starts(f"{PROGRAM} {line}"), name
