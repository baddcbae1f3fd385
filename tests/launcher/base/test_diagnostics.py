"""Each invalid input gives exactly these lines."""

import itertools
import re
from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import Diagnostic, as_json, nearest_match, plain, render
from tests.launcher.given import refused


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """The error text for options and mine.yaml; lines of shipped files have no number."""
    monkeypatch.chdir(tmp_path)

    def lines(*sets, text=None, name="mine.yaml", **options):
        if text is not None:
            Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
            options["configs"] = [Path(name)]
        found = render(refused(*sets, **options)).replace(str(tmp_path), "HERE")
        return re.sub(r"(ds_configs/\S+\.yaml):\d+", r"\1:N", found).splitlines()

    return lines


WRONG_VALUES = """\
precision: bf61
compile: yes
lr: 1e-3
optm: {lr: 1e-3}
optim:
  lr: fast
  eps: .inf
  betas: [0.9]
  clip_norm: none
train:
  epoch: 3
  seed: 1.5
  ema: 1
  preview: off
schedule: {warmup: 5 percent}
memory: {activation_checkpointing: every two}
data: {path: 2024}
"""
ERRORS_OF_VALUES = """\
error: unknown precision 'bf61'
  where         mine.yaml:1 precision (overrides fp32 from ds_configs/models/language.yaml:N)
  allowed       auto, fp32, tf32, bf16, fp16, fp8
  did you mean  bf16
  fix           --set precision=bf16
error: unknown compile 'yes'
  where         mine.yaml:2 compile
  allowed       auto, on, off, graphs
  did you mean  on
  fix           --set compile=on
error: unknown setting 'lr'
  where         mine.yaml:3 lr
  allowed       26 names; see  python -m launcher explain
  did you mean  --lr 1e-3
  hint          in mine.yaml:3:  optim.lr: 1e-3
error: unknown setting 'optm.lr'
  where         mine.yaml:4 optm.lr
  allowed       26 names; see  python -m launcher explain
  did you mean  optim.lr
  hint          in mine.yaml:4:  optim.lr: 1e-3
error: optim.lr 'fast' should be a valid number
  where         mine.yaml:6 optim.lr (overrides 0.008 from ds_configs/models/language.yaml:N)
  allowed       a number, above 0
error: optim.eps inf should be a finite number
  where         mine.yaml:7 optim.eps
  allowed       a number, above 0
error: optim.betas [0.9] should have at least 2 items after validation, not 1
  where         mine.yaml:8 optim.betas
  allowed       two numbers, each at least 0 and below 1
error: optim.clip_norm 'none' should be a valid number
  where         mine.yaml:9 optim.clip_norm (overrides 1 from ds_configs/models/language.yaml:N)
  allowed       a number, above 0, or null
  did you mean  null
  fix           --set optim.clip_norm=null
error: unknown setting 'train.epoch'
  where         mine.yaml:11 train.epoch
  allowed       14 names; see  python -m launcher explain
  did you mean  train.epochs
  hint          in mine.yaml:11:  train.epochs: 3
error: train.seed 1.5 should be a valid integer
  where         mine.yaml:12 train.seed
  allowed       a whole number, at least 0, below 9223372036854775808
error: train.ema 1 should be less than 1
  where         mine.yaml:13 train.ema
  allowed       a number, above 0, below 1
error: train.preview 'off' should be a valid boolean
  where         mine.yaml:14 train.preview
  allowed       true or false
  did you mean  false
  fix           --set train.preview=false
error: schedule.warmup '5 percent' is not understood
  where         mine.yaml:15 schedule.warmup (overrides 6 from ds_configs/models/language.yaml:N)
  allowed       a number of steps, a share such as '5%', or epochs such as '2 epochs'
error: memory.activation_checkpointing 'every two' is not understood
  where         mine.yaml:16 memory.activation_checkpointing (overrides none from \
ds_configs/models/language.yaml:N)
  allowed       none, selective, full, or such as 'every 2'
error: data.path 2024 should be a valid string
  where         mine.yaml:17 data.path (overrides embedded:python from ds_configs/models/language.yaml:N)
  allowed       a text or list of texts
"""
WRONG_NAMES = """\
model: {family: langage}
mode: Ultra_Fast
engine: zero2
"""
ERRORS_OF_NAMES = """\
error: unknown model 'langage'
  where         mine.yaml:1 model.family
  allowed       event_seg, language, abr, doc_translation, eeg_text; a task of your own: \
package.module:Class; a Hugging Face model: its folder, OWNER/NAME or hf:OWNER/NAME@REVISION; or the \
folder of a run
  did you mean  language
  fix           --set model.family=language
error: unknown mode 'Ultra_Fast'
  where         mine.yaml:2 mode
  allowed       default, benchmark, conservative, fast, lite, resource-efficient, staged, ultra-fast
  did you mean  ultra-fast
  fix           --set mode=ultra-fast
error: unknown setting 'engine'
  where         mine.yaml:3 engine
  allowed       name, nproc, threads, shares, bind_cores, timeout_s, max_restarts, hybrid_shard, offload, ds_config
  did you mean  --engine zero2
  hint          in mine.yaml:3:  engine.name: zero2
"""


def test_all_errors_in_a_settings_file_have_this_text(lines):
    assert lines(text=WRONG_VALUES) == ERRORS_OF_VALUES.splitlines()
    assert lines(text=WRONG_NAMES, model=None) == ERRORS_OF_NAMES.splitlines()


ALONE = {
    # What ends the reading of a file, or is found in valid settings.
    "optim: {lr: 1}\noptim: {lr: 2}": """\
error: mine.yaml cannot be read as YAML: the key 'optim' is set twice, first in line 1
  where         mine.yaml:2:1
""",
    "train: {seed: 1}\ntrain.seed: 2": """\
error: mine.yaml cannot be read as YAML: the key 'train.seed' is set twice, first in line 1
  where         mine.yaml:2:1
""",
    b"optim:\n  # caf\xe9\n": """\
error: mine.yaml cannot be read as YAML: a byte that is no UTF-8 text
  where         mine.yaml:2:8
""",
    "- optim": """\
error: mine.yaml cannot be read as YAML: its root is no mapping of keys to values
  where         mine.yaml:1:1
""",
    "limits: {swap: 85}": """\
error: limits.swap 85 is above limits.critical.swap
  where         mine.yaml:1 limits.swap
""",
    "train: {global_batch: 40, micro_batch: 16}": """\
error: train.global_batch 40 does not fit train.micro_batch 16
  where         mine.yaml:1 train.micro_batch
  allowed       the product train.micro_batch × train.accumulation, or two of the three
  fix           --set train.micro_batch=10
""",
    "train: {global_batch: 40, micro_batch: 16, accumulation: 2}": """\
error: train.global_batch 40 does not fit train.micro_batch 16 × train.accumulation 2
  where         mine.yaml:1 train.global_batch
  allowed       the product train.micro_batch × train.accumulation, or two of the three
  fix           --set train.global_batch=32
""",
}


@pytest.mark.parametrize("text", ALONE, ids=str)
def test_an_error_that_comes_alone_has_this_text(lines, text):
    assert lines(text=text) == ALONE[text].splitlines()


WRONG_OPTIONS = {
    "model": "language:ful",
    "engine": "zero_2_offload",
    "nproc": "0",
    "lr": "1e-3",
    "data": "nowhere",
}
WRONG_SETS = ("optim", "qqq.zzz=3", "optim.betas=[0.9", "optim.lr=2e-3")
ERRORS_OF_OPTIONS = """\
error: unknown model size 'ful'
  where         --model language:ful (overrides full from ds_configs/models/language.yaml:N)
  allowed       tiny, small, lite, full, 124M, 350M, 1.3B
  did you mean  full
  fix           --model language:full
error: unknown engine 'zero_2_offload'
  where         --engine zero_2_offload
  allowed       local, ddp, fsdp, fsdp-offload, oss, zero1, zero2, zero3, zero2-offload, zero3-offload, auto
  did you mean  zero2-offload
  fix           --engine zero2-offload
error: engine.nproc 0 should be greater than or equal to 1
  where         --nproc 0
  allowed       a whole number, at least 1, at most 1000000
  did you mean  1
  fix           --nproc 1
error: --set optim has no value
  where         --set optim
  allowed       --set KEY=VALUE
error: data.path 'nowhere' does not exist (HERE/nowhere)
  where         --data nowhere
  allowed       a file or folder that exists
error: unknown setting 'qqq.zzz'
  where         --set qqq.zzz=3
  allowed       26 names; see  python -m launcher explain
error: --set optim.betas=[0.9 cannot be read: did not find expected ',' or ']'
  where         --set optim.betas=[0.9
"""


def test_all_errors_on_the_command_line_have_this_text(lines):
    assert lines(*WRONG_SETS, **WRONG_OPTIONS) == ERRORS_OF_OPTIONS.splitlines()


def test_a_diagnostic_in_json_is_an_object_and_a_warning_begins_with_its_name():
    diagnostic = Diagnostic("a 'b' is not known", "a", "b", "x.yaml:1 a", (1, "y"), "c", "c", "d")
    [found] = as_json([diagnostic])
    assert found == {
        **{"severity": "error", "message": "a 'b' is not known", "key": "a", "value": "b"},
        **{"where": "x.yaml:1 a", "overrides": {"value": 1, "where": "y"}},
        **{"allowed": "c", "did_you_mean": "c", "fix": ["d"], "hint": None},
    }
    assert render([Diagnostic("careful", severity="warning")]) == "warning: careful"
    [found] = as_json([Diagnostic("m", value='https://h/?token=abc"', fix="'https://u:p@h' b")])
    assert (found["value"], found["fix"]) == ("https://h/?token=***", ["https://***@h", "b"])


def test_the_closest_match_ignores_case_and_dashes():
    names = ["ddp", "fsdp", "fsdp-offload", "zero2", "zero3"]
    typed = ["ZERO2", "zero_2", "fsdp_offload", "fsdpoffload", "dpp", "xyz"]
    found = ["zero2", "zero2", "fsdp-offload", "fsdp-offload", "ddp", None]
    assert [nearest_match(name, names) for name in typed] == found


def test_values_are_shown_as_written_and_numbers_exactly():
    values = [1e-4, 0.00025, 3.0, 0.1, 1e22, None, True, ["a", 1]]
    shown = ["1e-4", "2.5e-4", "3", "0.1", "1e+22", "null", "true", "['a', 1]"]
    assert [plain(value) for value in values] == shown
    for exponent, digits in itertools.product(range(-12, 3), ("1", "2.5", "3.14159", "7.000001")):
        number = float(f"{digits}e{exponent}")
        assert float(plain(number)) == number
