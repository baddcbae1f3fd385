"""Names of other programs: each has a line that this program accepts, or advice."""

import shlex
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import read
from gearshift.launcher.base.diagnostics import SettingsError, fold
from gearshift.launcher.config import other_tools
from gearshift.launcher.config.command_line import BY_FLAG
from gearshift.launcher.config.commands import COMMANDS
from gearshift.launcher.config.fixes import as_commands
from gearshift.launcher.config.resolve import resolve
from tests.launcher.given import SERVER

BASE = ["--model", "language:tiny", "--set", "model.lora.rank=4"]
TABLE = other_tools.table()
SWITCH = {"on": "true", "off": "False"}
PLAUSIBLE = {
    **{"--model": "language:small", "--data": "mine.txt", "--config": "mine.yaml"},
    **{"--ds-config": "ds.json", "--engine": "ddp", "--precision": "bfloat16", "--seq-len": "64"},
    **{"optim.name": "adamw_torch", "schedule.name": "cosine_with_restarts", "device": "cuda"},
    **{"memory.activation_checkpointing": "selective", "model.quantize": "nf4"},
    **{"eval.share": "0.1", "schedule.final": "0.1"},
    **{"model.lora.dropout": "0.1", "train.ema": "0.99", "data.fraction": "0.5"},
    **{"schedule.warmup": "0.03", "eval.every": "0.1", "save.every": "5", "optim.lr": "1e-4"},
    **{"model.lora.layers": "q_proj,v_proj", "data.columns": "body", "model.vocabulary": "512"},
}
"""A value by what the line of a name sets; 4 for all others."""


def entries():
    """Each name with each kind of value, and what the table says of it."""
    for name, entry in TABLE["settings"].items():
        texts = {"*": entry} if isinstance(entry, str) else entry
        for kind, text in texts.items():
            value = SWITCH.get(kind, kind)
            if kind == "*":
                words = [word.partition("=")[0] for word in text.split()]
                value = next((PLAUSIBLE[word] for word in words[::-1] if word in PLAUSIBLE), "4")
            yield name, value, text


def error_of(typed):
    """The first error of a command line, as it is printed."""
    line = read(typed)
    errors = line.diagnostics
    if not errors:
        with pytest.raises(SettingsError) as raised:
            resolve(line.args, SERVER, None)
        errors = raised.value.diagnostics
    return as_commands(line, errors)[0]


def errors_of_all(forms):
    """The errors of a command line with all `forms`, by what was typed; fixes are options."""
    line = read([*BASE, *(word for form in forms for word in form)])
    errors = line.diagnostics
    if not errors:
        with pytest.raises(SettingsError) as raised:
            resolve(line.args, SERVER, None)
        errors = raised.value.diagnostics
    return errors


def test_the_fix_of_each_name_is_accepted_and_all_others_have_advice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"mine.txt": "a", "mine.yaml": "train: {seed: 1}", "ds.json": "{}"}.items():
        Path(name).write_text(text)
    typed = [entry for entry in entries() if f"--{entry[0]}" not in BY_FLAG]
    errors = errors_of_all([[f"--{name}", value] for name, value, _ in typed])
    names = {name: (name, value, text) for name, value, text in entries()}
    typed += names.values()
    errors += errors_of_all([["--set", f"{name}={value}"] for name, value, _ in names.values()])
    lines = set()
    for (name, value, text), error in zip(typed, errors, strict=True):
        assert name in error.where, error
        if not text.startswith(("-", "default: ")):
            assert error.hint == text and error.fix is None
            continue
        assert error.fix is not None, (name, value, error)
        lines.add(error.fix)
    for line in lines:
        again = read([*BASE, *shlex.split(line)])
        assert not again.diagnostics, line
        resolve(again.args, SERVER, None)


def test_each_command_has_one_of_ours():
    for name, text in TABLE["commands"].items():
        first = text.split()[0]
        assert name not in COMMANDS and (first in COMMANDS or first == "--version"), name


def test_a_value_of_another_tool_is_one_of_ours_and_names_are_told_apart():
    for key, names in TABLE["values"].items():
        for name, value in names.items():
            assert other_tools.value_of(key, name) == value
    folded = [fold(name) for name in TABLE["settings"]]
    assert len({*folded}) == len(folded) >= 120


@pytest.mark.parametrize(
    "typed",
    ["--zero-steps 5", "--min-steps 5", "--optimizer mine", "--lr-scheduler mine", "--set name=a"],
)
def test_another_word_is_no_misspelling_and_a_value_must_be_valid(here, typed):
    error = error_of(shlex.split(typed))
    assert error.fix is None and "max" not in str(error.did_you_mean)


def test_a_name_in_a_file_gets_its_line_there(here):
    Path("mine.yaml").write_text("train:\n  learning_rate: 1e-4\n")
    error = error_of(["--config", "mine.yaml"])
    assert (error.fix, error.hint) == (None, "in mine.yaml:2:  optim.lr: 1e-4")


def test_a_word_of_another_tool_alone_has_no_fix():
    assert error_of(["chat"]).fix is None
