"""`convert` writes our settings file from one of an original, line by line, and a run says so."""

import json
import re

import pytest

from launcher.__main__ import main
from launcher.config.settings_file import node_value, read_settings_file
from tests.launcher.config.original_words import FILES, lay_out
from tests.launcher.hub import cached

GEMMA, LLAMA = "google/gemma-3n-E4B-it", "NousResearch/Llama-2-7b-hf"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with the data and the files that users of the originals have."""
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for family, text in FILES.items():
        (tmp_path / f"{family}.yaml").write_text(text)
    cached(tmp_path / "hub", monkeypatch, "facebook/bart-base", GEMMA, LLAMA)
    return tmp_path


def settings(path):
    return node_value(read_settings_file(path))


def convert(here, name, text, *options):
    """The text of the file that convert writes for a file of this name."""
    (here / name).write_text(text)
    assert main(["convert", name, "--out", "ours.yaml", *options]) == 0
    return (here / "ours.yaml").read_text()


@pytest.fixture
def error(said):
    """The lines of the only error of a command line."""

    def lines(*words):
        text = said(*words, code=2)
        assert text.count("error:") == 1
        return text.splitlines()

    return lines


@pytest.mark.parametrize("family", FILES)
def test_a_run_with_a_file_of_an_original_names_convert_whose_file_passes_a_dry_run(
    family, here, said, error
):
    for command in ([], ["explain"], ["plan"]):
        lines = error(*command, "--config", f"{family}.yaml")
        assert f"of the original of {family}" in lines[0]
        assert lines[-1] == f"  fix           python -m launcher convert {family}.yaml"
    out = said(*lines[-1].split()[4:])
    command = re.search(r"^check it: +python -m launcher (.+)$", out, re.M)[1]
    assert command == f"--config {family}-gearshift.yaml --dry-run"
    assert said(*command.split(), "--json")["settings"]["model"]["family"] == family


BOTH_TRACKERS = ["tensorboard", "wandb:mine"]
BLOCK = "seed: 1\n# mine\n\ndata:\n  batch_size: 4\nmodel:\n  embedding_dims: [32, 64]\n"


def test_each_line_of_the_input_is_a_line_of_the_output(here):
    _, _, body = convert(here, "theirs.yaml", BLOCK, "--model", "event_seg").partition("\n\n")
    lines = BLOCK.splitlines()
    assert len(body.splitlines()) == len(lines)
    for line, ours in zip(lines, body.splitlines(), strict=True):
        assert line.strip().partition(":")[0].strip() in ours


def test_repeated_keys_count_as_in_the_original(here, error):
    text = """\
training:
  batch_size: 64  # first
  batch_size: 32
loss:
  use_focal_loss: true
  loss_weights: {signal: 2}
optimizer: {type: adamw}
memory: {clear_cache_every: 10}
loss:
  loss_weights:
    signal: 3
"""
    written = convert(here, "config_fast.yaml", text)
    found = settings(here / "ours.yaml")
    assert found["train.micro_batch"] == 32
    assert found["model.loss.signal"] == 3
    again = "# training.batch_size: 64  (dropped: training.batch_size is set again in line 3, "
    assert f"{again}which counts)  # first" in written
    section = "loss is set again in line 9, which counts"
    assert f"# loss.use_focal_loss: true  (dropped: {section})" in written
    assert f"# loss.loss_weights.signal: 2  (dropped: {section})" in written
    # As --config it is not an error about the first repeated key.
    last = error("--config", "config_fast.yaml")[-1]
    assert last.endswith("convert config_fast.yaml")


SCRIPT = """\
#!/bin/bash
# Finetune.
base_dir=data
export image_dir=$base_dir/../DoTA_dataset/imgs
python codes/finetune_dimtda.py \\
    --trans_model_dir ${base_dir}/../pretrained/decoder \\
    --image_dir $image_dir --fp16 \\
    --output_dir $SOMEWHERE \\
    --batch_size_per_gpu=4
"""


def test_the_options_of_a_script_are_read_with_its_variables(here):
    written = convert(here, "finetune.sh", SCRIPT)
    found = settings(here / "ours.yaml")
    assert found["data.path"] == "data/../DoTA_dataset"
    assert found["model.pretrained"] == "data/../pretrained"
    assert (found["train.micro_batch"], found["precision"]) == (4, "auto")
    assert "# Finetune.\n# base_dir=data\n" in written
    why = "$SOMEWHERE has a variable that the file does not set"
    assert f"# output_dir: $SOMEWHERE  (dropped: {why})" in written
    assert main(["--config", "ours.yaml", "--dry-run"]) == 0
    (here / "ours.yaml").unlink()
    convert(here, "options.txt", SCRIPT.partition(".py ")[2].replace("\\\n", ""))
    assert settings(here / "ours.yaml")["train.micro_batch"] == 4


def test_the_class_of_an_original_is_read_without_running_it(here):
    text = '''\
import os
@dataclass
class TrainingConfig:
    """Settings."""
    base_model: str = "google/gemma-3n-E4B-it"
    max_ram_percent: float = 70.0  # of all
    output_dir: str = os.mkdir("ran")
    batch_size: int = 4
    batch_size: int = 8
'''
    written = convert(here, "training_config.py", text)
    found = settings(here / "ours.yaml")
    assert (found["limits.ram"], found["train.micro_batch"]) == (70, 8)
    assert not (here / "ran").exists()
    assert "(dropped: its value is computed by code)" in written
    assert "(dropped: batch_size sets train.micro_batch, too, and counts)" in written
    assert found["model.pretrained"] == f"hf:{GEMMA}"
    assert main(["--config", "ours.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("family", "lines", "key", "value"),
    [
        # A word of one decides whatever the order; else the later line counts.
        ("abr", "save_best_only: true\nsave_every: 5", "save.every", None),
        ("abr", "save_every: 5\nsave_best_only: true", "save.every", None),
        ("abr", "save_every: 5\nsave_best_only: false", "save.every", "5 epochs"),
        ("language", "save_steps: 5\ncheckpoint_save_frequency: 6", "save.every", 6),
        ("language", "mac_mode: yes\ncpu_only_mode: on", "limits.profile", "mac"),
        ("eeg_text", "TRAIN_EPOCHS: 3\nPRETRAIN_EPOCHS: 9", "train.epochs", 3),
        ("abr", "use_tensorboard: true\nwandb_project: mine", "track", BOTH_TRACKERS),
        ("abr", "use_wandb: true\nwandb_project: mine", "track", ["wandb:mine"]),
        ("abr", "use_wandb: false\nwandb_project: mine", "track", None),
        ("event_seg", "embedding_dims: [48, 96, 192]", "model.size", "lite"),
        ("event_seg", "embedding_dims:\n- 64\n- 128\n- 256\n- 512", "model.size", None),
        ("abr", "eps: 1e-6\nlearning_rate: 1e-3", "optim.eps", 1e-6),
        ("abr", "scheduler: {type: polynomial}", "schedule.name", None),
        ("abr", "gradient_clip_norm: null", "optim.clip_norm", None),
        ("abr", "num_epochs: ~", "train.epochs", None),
        ("abr", "data_path: 'it''s #1.csv'", "data.path", "it's #1.csv"),
        ("abr", '{"training": {\t"num_epochs": 7}}', "train.epochs", 7),
    ],
)
def test_a_setting_has_the_value_that_the_original_uses(family, lines, key, value, here):
    name = "theirs.json" if lines.startswith("{") else "theirs.yaml"
    convert(here, name, lines + "\n", "--model", family)
    assert settings(here / "ours.yaml").get(key) == value
    if family in ("abr", "event_seg") and "track" not in key:
        assert main(["--config", "ours.yaml", "--set", "data.path=data.csv", "--dry-run"]) == 0


def test_unknown_names_and_values_are_named_on_the_console_and_in_json(here, capsys):
    text = "training: {num_epochs: 2, frobnicate: 3}\nscheduler: {type: polynomial}\nT_mult: 1\n"
    convert(here, "theirs.yaml", text, "--model", "abr")
    said = capsys.readouterr().out
    assert "training.frobnicate: 3  (no setting here has this name)" in said
    assert (
        "scheduler.type: polynomial  (unknown schedule.name 'polynomial'; allowed: constant" in said
    )
    (here / "ours.yaml").unlink()
    convert(here, "theirs.yaml", text, "--model", "abr", "--json")
    content = json.loads(capsys.readouterr().out)
    assert content["settings"] == {"train.epochs": 2, "schedule.t_mult": 1}
    assert [row["line"] for row in content["dropped"]] == [1, 2]


def test_a_secret_is_not_copied(here):
    written = convert(here, "theirs.yaml", "azure_openai: {api_key: sk-1234}\ntime_bins: 10\n")
    assert "sk-1234" not in written and "api_key: …" in written


TRAINER = """{"learning_rate": 2e-5, "num_train_epochs": 3, "bf16": true, "fp16": false,
"optim": "adamw_torch", "report_to": ["wandb"], "lr_scheduler_type": "cosine", "logging_steps": 5,
"deepspeed": "ds.json", "eval_strategy": "steps", "save_total_limit": 2, "warmup_ratio": 0.1}
"""
LIGHTNING = """\
seed_everything: 7
trainer: {accelerator: cpu, devices: 2, strategy: fsdp, max_epochs: 9, precision: bf16-mixed}
model: {class_path: mine.Model}
optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}
"""
ACCELERATE = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
machine_rank: 0
mixed_precision: fp16
num_machines: 1
num_processes: 2
use_cpu: false
"""
AXOLOTL = """\
base_model: NousResearch/Llama-2-7b-hf
sequence_len: 4096
val_set_size: 0.05
adapter: lora
lora_r: 32
lora_alpha: 16
micro_batch_size: 2
lr_scheduler: cosine
flash_attention: true
optimizer: adamw_bnb_8bit
"""
OF_OTHER_TOOLS = {
    TRAINER: {
        **{"precision": "bf16", "optim.name": "adamw", "schedule.name": "cosine", "log.every": 5},
        **{"schedule.warmup": "10%", "track": ["wandb"], "save.keep_last": 2},
    },
    LIGHTNING: {
        **{"engine.name": "fsdp", "engine.nproc": 2, "device": "cpu", "precision": "bf16"},
        **{"train.epochs": 9, "train.seed": 7, "optim.lr": 1e-3},
    },
    ACCELERATE: {"engine.name": "ddp", "engine.nproc": 2, "precision": "fp16"},
    AXOLOTL: {
        **{"data.seq_len": 4096, "eval.share": 0.05, "model.lora.rank": 32},
        **{"train.micro_batch": 2, "schedule.name": "cosine", "optim.name": "adamw"},
        "model.pretrained": f"hf:{LLAMA}",
    },
}


@pytest.mark.parametrize("text", OF_OTHER_TOOLS, ids=lambda text: text.split()[0])
def test_a_file_of_another_tool_is_converted_for_the_family_of_text(text, here, error, capsys):
    (here / "theirs.yaml").write_text(text)
    first, *_, last = error("--config", "theirs.yaml")
    assert "theirs.yaml is a settings file of another tool" in first
    assert last == "  fix           python -m launcher convert theirs.yaml"
    convert(here, "theirs.yaml", text)
    assert "of another tool, for language; --model FAMILY names another" in capsys.readouterr().out
    found = settings(here / "ours.yaml")
    assert found["model.family"] == "language"
    assert {key: found.get(key) for key in OF_OTHER_TOOLS[text]} == OF_OTHER_TOOLS[text]
    dry = ["--set", "engine.name=local", "--set", "precision=auto", "--dry-run"]
    assert main(["--config", "ours.yaml", *dry]) == 0, capsys.readouterr().err


def test_a_file_that_is_read_as_it_is_gets_the_line_that_reads_it(here, error, said):
    model = '{"model_type": "gpt2", "architectures": ["A"]}'
    for name, text, line in (
        ("ds.json", '{"zero_optimization": {"stage": 3}}', "--engine zero3 --ds-config ds.json"),
        ("config.json", model, "--set model.pretrained=."),
        ("ours.yaml", "model: {family: abr}\noptim: {lr: 1e-3}\n", "--config ours.yaml"),
    ):
        (here / name).write_text(text)
        *_, fix = error("convert", name)
        assert fix == f"  fix           python -m launcher {line}"
        if name != "ours.yaml":
            assert error("--config", name)[-1] == f"  fix           {line}"
    few = "model: {family: language}\nmax_ram_percent: 70\nuse_gpu: no\n"
    (here / "ours.yaml").write_text(few)  # a line for each of a few words
    err = said("--config", "ours.yaml", "--dry-run", code=2)
    assert err.count("error:") == 2 and "convert" not in err


def test_a_file_of_the_user_is_not_overwritten(here, error):
    (here / "abr-gearshift.yaml").write_text("mine")
    *_, fix = error("convert", "abr.yaml")
    assert fix == "  fix           python -m launcher convert abr.yaml --out abr-gearshift-2.yaml"
    assert main(fix.split()[4:]) == 0
    assert (here / "abr-gearshift.yaml").read_text() == "mine"


TWO = "base_model: x\nmax_ram_percent: 70\nT_0: 5\nT_mult: 2\n"


def test_a_file_that_is_not_recognized_is_one_error_and_nothing_is_written(here, error):
    none = "is no settings file of an original: its keys are those of none"
    two = "may be a settings file of the original of abr or of language"
    aliases = "".join(f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}\n" for n in range(1, 40))
    for text, message in (
        ("num_heads: 8\ndropout: 0.1\nbatch_size: 2\n", none),  # words of several
        ("", none),
        (TWO, two),
        ("- a\n", "cannot be read as YAML: its root is not a mapping"),
        ("a: &x {b: *x}\n", "cannot be read as YAML: an alias that holds itself"),
        (f"a0: &a0 {{x: 1, y: 2}}\n{aliases}", "more than 10,000 values"),
        (
            f"a0: &a0 [x]\n{aliases.replace('{l:', '[').replace('r:', '').replace('}', ']')}",
            "10,000",
        ),
    ):
        (here / "theirs.yaml").write_text(text)
        before = sorted(here.iterdir())
        assert message in error("convert", "theirs.yaml")[0]
        assert sorted(here.iterdir()) == before
