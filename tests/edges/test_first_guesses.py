"""First guesses: words of other tools are one error with the line that does what was meant."""

import json
import shlex
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.cli.parser import read
from launcher.config import presets
from launcher.config.command_line import RUN as RUN_COMMAND
from launcher.config.foreign_words import OTHERS, word_files
from launcher.config.options import OPTIONS
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
    "finetune --data mine.jsonl": f"{PROGRAM} --set model.pretrained=my_bart --data mine.jsonl",
    "finetune --model gpt2 --lora --epohcs 3": f"{PROGRAM} --set model.pretrained=hf:gpt2 "
    "--set model.lora.rank=8 --epochs 3",
    "lora --model ./my_model": f"{PROGRAM} --set model.pretrained=my_model --set model.lora.rank=8",
    "accelerate launch --num_processes 2 train.py --bf16": f"{PROGRAM} --nproc 2 --precision bf16  "
    "a run starts its processes itself; --nproc N is their number",
    "generate --max_new_tokens 5": f"{PROGRAM} predict {RUN} --max-tokens 5",
    "test runs/none": f"{PROGRAM} evaluate runs/none",
    "finetune --help": f"{PROGRAM} --set model.pretrained=my_bart",
    "rnu --epohcs 3": f"{PROGRAM} run --epochs 3",
    "hlep": f"{PROGRAM} help",
    "tune": f"{PROGRAM} --engine auto  the fastest that fits, by a plan; to measure: compare "
    "--engines ddp,fsdp --nproc 2 --steps 20",
    "trainer.max_epochs=3 optim.lr=1e-3": f"{PROGRAM} --epochs 3 --set optim.lr=1e-3",
    "+trainer.devices=2": f"{PROGRAM} --nproc 2",
    "pretrain --lr 1e-3": f"{PROGRAM} --lr 1e-3",
    "generate 'def '": f"{PROGRAM} predict {RUN} --input 'def '",
    f"infer {RUN} --input mine.jsonl": f"{PROGRAM} predict {RUN} --input mine.jsonl",
    "evalute": f"{PROGRAM} evaluate {RUN}",
    "serve": f"{PROGRAM} export {RUN} --format hf  then serve that folder with a server for "
    "models of transformers, such as vLLM",
    "lite": f"{PROGRAM} --mode lite",
    "language:tiny --set schedule.name=wsd --out lr=3": f"{PROGRAM} --model language:tiny "
    "--set schedule.name=wsd --out lr=3",
    "zero2 --nproc 2": f"{PROGRAM} --engine zero2 --nproc 2",
    "language:tiny": f"{PROGRAM} --model language:tiny",
    "mine.jsonl": f"{PROGRAM} --data mine.jsonl",
    "mine.yaml": f"{PROGRAM} --config mine.yaml",
    "my_model": f"{PROGRAM} --set model.pretrained=my_model",
    RUN: f"{PROGRAM} --resume {RUN}",
    "train.py": f"{PROGRAM} new-task train_task  and move the model and the data of train.py there",
    "BART_MODEL=my_bart": f"{PROGRAM} --model eeg_text --set model.pretrained=my_bart",
    "BART_MODEL=facebook/bart-base": f"{PROGRAM} --model eeg_text "
    "--set model.pretrained=hf:facebook/bart-base",
    "batch_size=4 --lite": f"{PROGRAM} --batch-size 4 --lite",
    "optim.lr=1e-3": f"{PROGRAM} --set optim.lr=1e-3",
    "gpt2 --lr 1e-4": f"{PROGRAM} --set model.pretrained=hf:gpt2 --lr 1e-4",
}


def starts(line):
    """Whether a line of the program can start; of a run, with --dry-run."""
    argv = shlex.split(line.partition("  ")[0])
    command_line = read(argv[3:])
    assert not command_line.diagnostics
    return command_line.command.name != "run" or main([*argv[3:], "--dry-run"]) == 0


def test_a_first_word_that_is_no_command_gets_one_line_that_starts(home):
    assert only_error("foo=1") == only_error("CUDA_VISIBLE_DEVICES=0") == ""  # no guess
    assert {typed: only_error(typed) for typed in COMMANDS} == COMMANDS
    assert [line for line in COMMANDS.values() if not starts(line)] == []


def test_the_error_of_a_first_word_is_printed_once_and_what_stays_wrong_has_its_own(home, capsys):
    for typed in ("finetune", "gpt2", "chat", "resum"):
        assert main([typed]) == 2
        assert capsys.readouterr().err.count("error:") == 1
    assert main(["finetune", "--model", "gpt2", "--zzz", "3"]) == 2
    first, second = capsys.readouterr().err.split("error: ")[1:]
    assert first.endswith("--set model.pretrained=hf:gpt2 --zzz 3\n")
    assert second.startswith("unknown option '--zzz'")


def test_without_a_run_or_a_pretrained_model_a_guess_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = f"{PROGRAM}  trains a model; then  {PROGRAM}"
    assert only_error("chat --top-k 5") == f"{first} predict RUN --top-k 5"
    assert only_error("evalute").startswith(first)
    for command in ("predict", "evaluate", "resume", "verify", "report", "track"):
        assert only_error(command) == f"{first} {command} RUN"
    assert only_error("convert") == f"{PROGRAM} convert FILE"
    assert only_error("--lora").startswith(
        "--set model.lora.rank=8 --set model.pretrained=FOLDER  FOLDER: "
    )


def test_train_is_run(home, capsys):
    assert vars(read(["train", "--lite"]).args) == vars(read(["run", "--lite"]).args)
    assert read(["train", "--lite"]).command == read(["run", "--lite"]).command
    assert main(["train", "--dry-run"]) == 0
    assert main(["help", "train"]) == 0


OPTIONS_OF_OTHERS = {
    "--lora 16": "--set model.lora.rank=16 --set model.pretrained=my_bart",
    "--lora.r=4": "--set model.lora.rank=4",
    "--bf16 False": "remove it: off unless you ask for it",
    "--optim.lr=1e-3": "--set optim.lr=1e-3",
    "--model eeg_text --freeze_encoder": "--set model.freeze_encoder=true",
    "--lerning-rate 1e-3": "--lr 1e-3",
    "--nnodes 2": "remove it: an option of torchrun, which starts  -m launcher  on several nodes",
    "--hub_model_id me/mine": "remove it: nothing is uploaded; afterwards  python -m launcher "
    "export RUN --format hf",
    "--eval_strategy epoch": "--set eval.every='1 epoch'",
    "--resume_from_checkpoint": "--resume auto",
    "-e 3": "--epochs 3",
    "-e ddp": "--engine ddp",
    "-v": "--version",
    "--dataset": "--data VALUE",
    "--hf my_model/config.json": "--set model.pretrained=my_model",
    "--hf gpt2": "--set model.pretrained=hf:gpt2",
    "--gpus 2": "--nproc 2",
    "--gpus all": "remove it: a run uses all GPUs of this machine",
    "--gpus 0,1": "remove it: a run uses all GPUs that it sees; to choose,  "
    "export CUDA_VISIBLE_DEVICES=0,1",
    "--device cuda:0": "--set device=cuda",
    "--no_cuda": "--set device=cpu",
    "--output_dir here": "--out here",
    "--grad_accum 2": "--set train.accumulation=2",
    "--bf16": "--precision bf16",
    "--optimizer adam": "--set optim.name=adamw",
    "--strategy ddp": "--engine ddp",
    "--zero2": "--engine zero2",
    "--deepspeed": "--engine zero2",
    "--tiny": "--model language:tiny",
    "--do_train": "remove it: nothing here needs it",
    "--model abr --lora": "remove it: abr has no setting model.lora.rank",
    "--lora --set model.pretrained=my_model": "--set model.lora.rank=8",
    "data check mine.jsonl --seed 3": "--set train.seed=3",
    "data check mine.jsonl --lr 1e-3": "--set optim.lr=1e-3",
}


def test_an_option_of_another_tool_gets_the_option_here(home):
    assert {typed: only_error(typed) for typed in OPTIONS_OF_OTHERS} == OPTIONS_OF_OTHERS
    for typed, line in OPTIONS_OF_OTHERS.items():
        if line.startswith("--") and not line.endswith(("VALUE", "auto", "--version")):
            family = "--model eeg_text " if "freeze_encoder" in line else ""
            assert starts(f"{PROGRAM} {family}{line}"), typed


def test_each_mode_is_found_as_an_option_of_run_and_of_compare(home):
    for mode in presets.modes():
        if f"--{mode}" not in {option.flag for option in OPTIONS}:
            assert only_error(f"--{mode}") == f"--mode {mode}"
        assert starts(f"{PROGRAM} --mode {mode}"), mode
    assert only_error("compare --conservative") == "--modes conservative"


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


def test_a_config_json_of_the_working_folder_is_this_folder(home, monkeypatch, capsys):
    monkeypatch.chdir(home / "my_model")
    assert main(["--model", "config.json"]) == 2
    assert "fix           --set model.pretrained=.\n" in capsys.readouterr().err
    assert starts(f"{PROGRAM} --set model.pretrained=.")


VALUES = {
    "--engine deepspeed": "--engine zero2",
    "--engine single_gpu": "--engine local",
    "--precision bf16-mixed": "--precision bf16",
    "--precision 16": "--precision fp16",
    "--set device=gpu": "--set device=cuda",
    "--set optim.name=adamw_torch": "--set optim.name=adamw",
    "--mode staged --set stages=[txt]": "--set 'stages=[text]'",
}


def test_a_value_of_another_tool_gets_the_value_here(home, capsys):
    assert {typed: printed_fix(capsys, *typed.split()) for typed in VALUES} == VALUES


SETTINGS = {
    "lora.r=8": "--set model.lora.rank=8",
    "lora_alpha=16": "--set model.lora.alpha=16",
    "lora.target_modules=[q_proj]": "--set 'model.lora.layers=[q_proj]'",
    "pretrained=my_model": "--set model.pretrained=my_model",
    "trainer.max_epochs=2": "--set train.epochs=2",
}


def test_a_setting_of_another_tool_gets_the_setting_here(home, capsys):
    assert {typed: printed_fix(capsys, "--set", typed) for typed in SETTINGS} == SETTINGS
    assert [line for line in SETTINGS.values() if not starts(f"{PROGRAM} {line}")] == []


def test_adapters_without_a_pretrained_model_say_what_is_missing(home, capsys):
    assert main(["--set", "model.lora.rank=8", "--dry-run"]) == 0
    expected = "fix           --set model.pretrained=FOLDER  of a local model; or  remove it"
    assert expected in capsys.readouterr().err


def test_a_bare_path_gets_its_option_and_a_missing_run_is_named(home):
    assert only_error("--lite mine.jsonl") == "--data mine.jsonl"
    assert only_error("run train.py").startswith(f"{PROGRAM} new-task train_task")
    for command in ("predict", "evaluate", "resume", "verify", "report", "track"):
        assert only_error(command) == f"{PROGRAM} {command} {RUN}"


def test_no_word_of_the_table_is_an_option_here():
    words = [name for word in word_files()[OTHERS].words for name in word.names]
    assert not {option.flag[2:] for option in RUN_COMMAND.options} & {*words}
