"""Names of the originals, typed as options and as settings: the message names what to type."""

import shlex

import pytest

from launcher.base.diagnostics import SettingsError, fold
from launcher.cli.parser import read
from launcher.config.options import OPTIONS, names
from launcher.config.originals import ORIGINALS
from tests.launcher.given import resolved

TYPED = [
    ("--learning_rate 1e-3", "--lr", "--lr 1e-3"),
    ("--batch_size 4", "--batch-size", "--batch-size 4"),
    ("--num_workers=3", "--num-workers", "--num-workers 3"),
    ("--use_gpu", "--set device", "--set device=cuda"),
    ("--use_gpu true", "--set device", "--set device=cuda"),
    ("--use_gpu=False", "--set device", "--set device=cpu"),
    ("--max_ram_percent 80", "--set limits.ram", "--set limits.ram=80"),
    ("--max_gpu_percent=75", "--set limits.gpu", "--set limits.gpu=75"),
    ("--ultra_fast", "--ultra-fast", "--ultra-fast"),
    ("--mixed_precision", "--precision", "--precision fp16"),
    ("--mixed_precision bf16", "--precision", "--precision bf16"),
    ("--mixed-precision=no", "--precision", "--precision fp32"),
    ("--logdir logs", "--out", "--out logs"),
    ("--logdir 'my logs'", "--out", "--out 'my logs'"),
    ("--amp", "--precision", "--precision fp16"),
    ("--fp16", "--precision", "--precision fp16"),
    ("--bf16", "--precision", "--precision bf16"),
    ("--gradient_accumulation_steps 4", "--set train.accumulation", "--set train.accumulation=4"),
    (
        "--gradient-checkpointing",
        "--set memory.activation_checkpointing",
        "--set memory.activation_checkpointing=full",
    ),
    ("--patience 8", "--set stop.patience", "--set stop.patience=8"),
    ("--max_length 512", "--seq-len", "--seq-len 512"),
]


@pytest.mark.parametrize(("typed", "meant", "fix"), TYPED, ids=[typed for typed, *_ in TYPED])
def test_an_option_of_the_originals_is_an_error_with_the_line_to_type(typed, meant, fix):
    [found] = read(shlex.split(typed)).diagnostics
    assert (found.did_you_mean, found.fix) == (meant, fix)
    assert list(read(shlex.split(fix)).diagnostics) == []


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda original: original.names[0])
def test_every_name_of_the_table_names_something_that_exists(original):
    assert original.here in {option.flag for option in OPTIONS} | set(names("keys"))
    for name in original.names:
        assert fold(f"--{name}") not in {fold(option.flag) for option in OPTIONS}
        [found] = read([f"--{name}"]).diagnostics
        assert found.fix == original.line()


def test_a_name_belongs_to_one_entry():
    found = [fold(name) for original in ORIGINALS for name in original.names]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("typed", "meant", "fix"),
    [
        ("learning_rate=3", "optim.lr", "--set optim.lr=3"),
        ("optim.learning_rate=3", "optim.lr", "--set optim.lr=3"),
        ("training.batch_size=3", "train.micro_batch", "--set train.micro_batch=3"),
        ("use_gpu=true", "device", "--set device=cuda"),
        ("max_ram_percent=80", "limits.ram", "--set limits.ram=80"),
        ("output_dir=here", "--out", "--out here"),
        # A setting of the section that was named comes first.
        ("continual.lr=3", "continual.lr_scale", "--set continual.lr_scale=3"),
    ],
)
def test_a_setting_of_the_originals_is_an_error_with_the_line_to_type(typed, meant, fix):
    with pytest.raises(SettingsError) as raised:
        resolved(typed)
    [found] = raised.value.diagnostics
    assert (found.did_you_mean, found.fix) == (meant, fix)


def test_in_a_settings_file_the_fix_is_a_line_of_it(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("use_gpu: false\noptim:\n  learning_rate: 1e-3\n")
    with pytest.raises(SettingsError) as raised:
        resolved(configs=[mine])
    found = [diagnostic.fix for diagnostic in raised.value.diagnostics]
    assert found == ["device: cpu", "lr: 1e-3"]


def test_a_command_without_the_option_does_not_suggest_it():
    [found] = read(["list", "models", "--use_gpu"]).diagnostics
    assert (found.did_you_mean, found.fix) == (None, None)
