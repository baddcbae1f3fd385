"""What a new user types first: it starts, or the line that its error says does."""

import json
import shlex
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main, read
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.launcher.config import machine
from tests.launcher.given import LAPTOP, resolved
from tests.launcher.hub import serving_hub
from tests.launcher.runs import trained
from tests.runs.conftest import REQUESTS

QWEN = "--model hf:Qwen/Qwen3-0.6B"
ALPACA = "--data hf:tatsu-lab/alpaca"
LORA = "--set model.lora.rank=16"
GUESSES = {
    # Models.
    "--model Qwen/Qwen3-0.6B": None,
    "--model Qwen/Qwen3-0.6B@main": None,
    "--model ./qwen": None,
    "--model runs/mine": None,
    "--model https://huggingface.co/Qwen/Qwen3-0.6B": QWEN,
    "--model Qwen/Qwen3-0.6B:main": QWEN,
    "--model_name_or_path Qwen/Qwen3-0.6B": "--model Qwen/Qwen3-0.6B",
    "--model langauge:tiny": "--model language:tiny",
    "language:tiny": "--model language:tiny",
    "--from runs/mine": "--model runs/mine",
    "--model Qwen/Qwen3-0.6": QWEN,
    "--model qwen3-0.6b": QWEN,
    "--model runs/mien": "--model runs/mine",
    "--finetune --model Qwen/Qwen3-0.6B": "--model Qwen/Qwen3-0.6B",
    # Data.
    "--data hf:tatsu-lab/alpaca": None,
    "--data mine.jsonl --data texts": None,
    "--data tatsu-lab/alpaca": ALPACA,
    "--data https://huggingface.co/datasets/tatsu-lab/alpaca": ALPACA,
    "--data hf:tatsu-lab/alpaca:trian": f"{ALPACA}:default:train",
    "--dataset mine.jsonl": "--data mine.jsonl",
    "--data mien.jsonl": "--data mine.jsonl",
    "--data hf:tatsu-lab/alpca": ALPACA,
    "--dataset_name tatsu-lab/alpaca": ALPACA,
    "data check hf:tatsu-lab/alpaca:trian": "data check hf:tatsu-lab/alpaca:default:train",
    "train runs/mine mine.jsonl": "--model runs/mine --data mine.jsonl",
    # Options.
    "--learning_rate 1e-4": "--lr 1e-4",
    "-lr 1e-4": "--lr 1e-4",
    "--save_steps=5 --maxsteps 9": "--set save.every=5 --max-steps 9",
    "--eval-steps 50": "--set eval.every=50",
    "--gpus 2": "--nproc 2",
    "--optimizer adamw": "--set optim.name=adamw",
    "--lora": LORA,
    "--lora_r 8 --lora_alpha 16": "--set model.lora.rank=8 --set model.lora.alpha=16",
    "--load-in-4bit --lora": f"--set model.quantize=nf4 {LORA}",
    "--cpu": "--set device=cpu",
    "--bf16 --fp32": "--precision fp32",
    "--precision float32": "--precision fp32",
    "--gradient_accumulation_steps 4": "--set train.accumulation=4",
    "--per_device_train_batch_size 8": "--batch-size 8",
    "--num_train_epochs 2": "--epochs 2",
    "--max-steps -1 --epochs 1": "--max-steps null --epochs 1",
    "--warmup_ratio 0.03": "--set schedule.warmup=3%",
    "--max_grad_norm 1.0": "--set optim.clip_norm=1.0",
    "--gradient_checkpointing": "--set memory.activation_checkpointing=full",
    "--output_dir runs/a": "--out runs/a",
    "--report_to wandb": "--track wandb",
    "--engine fsdp2": "--engine fsdp",
    "--engine zero": "--engine zero2",
    "--do_train --lr 1e-3": "--lr 1e-3",
    "--optim.lrr 1e-3": "--set optim.lr=1e-3",
    "run optim.lr=1e-3 texts": "--set optim.lr=1e-3 --data texts",
    "--set train.learning_rate=1e-4 --lr 1": "--lr 1e-4",
    "--set optim_lr=1e-4": "--set optim.lr=1e-4",
    "--set optim.lr 1e-4 --data texts": "--set optim.lr=1e-4 --data texts",
    "--set max_steps=3": "--set train.max_steps=3",
    "--deterministc --precision bf16": "--deterministic --precision bf16",
    "mine.yaml --max-steps 2": "--config mine.yaml --max-steps 2",
    "--config qwen3-lora": "--config recipes/qwen3-lora",
    "--config recipes/qwen3-lroa": "--config recipes/qwen3-lora",
    # Commands.
    "train --model language:tiny": None,
    "finetune --data mine.jsonl": "--data mine.jsonl",
    "fine-tune --lrr 1e-3": "--lr 1e-3",
    "pre-train --max_iters 3": "--max-steps 3",
    "new-task my-task.py": "new-task my_task",
    "generate runs/mine --input hi": "predict runs/mine --input hi",
    "chat runs/mine": "predict runs/mine",
    "predict runs/mine --prompt hi": "predict runs/mine --input hi",
    "predict runs/mine --max_new_tokens 9": "predict runs/mine --max-tokens 9",
    "data fetch hf:Qwen/Qwen3-0.6": "data fetch hf:Qwen/Qwen3-0.6B",
    "test runs/mine": "evaluate runs/mine",
    "resume-from runs/mine": "resume runs/mine",
    "models": "list models",
    "info": "doctor",
}  # fmt: skip
"""What is typed, and the fix of its error; None: it starts."""
UNKNOWN = {"Qwen/Qwen3-0.6": "models", "runs/mien": "models", "tatsu-lab/alpca": "datasets"}
"""Names that the hub does not have."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with data, a model, and a run; and a hub with more of them."""
    monkeypatch.setattr(machine, "detect_machine", lambda: LAPTOP)
    monkeypatch.chdir(tmp_path)
    trained(Path("runs/mine"), resolved(), 10)
    files = {
        "mine.jsonl": REQUESTS,
        "texts/a.txt": "a text\n" * 99,
        "mine.yaml": "train: {epochs: 1}",
        "qwen/config.json": '{"model_type": "qwen3"}',
        "alpaca/train.jsonl": REQUESTS,
    }
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    with serving_hub(tmp_path / "home", monkeypatch) as server:
        server.add("Qwen/Qwen3-0.6B", Path("qwen"))
        server.add("tatsu-lab/alpaca", Path("alpaca"), kind="datasets")
        for name, kind in UNKNOWN.items():
            server.refuse(name, 404, "RepoNotFound", kind=kind)
        yield


def starts(words):
    """Whether a command line starts: a dry run, or for a command without one its arguments."""
    line = read(words)
    if "--dry-run" not in {option.flag for option in line.command.options}:
        return not line.diagnostics
    return main([*words, "--dry-run"]) == 0


def test_there_are_45_first_guesses():
    assert len(GUESSES) >= 45


@pytest.mark.parametrize(("typed", "fix"), GUESSES.items())
def test_a_first_guess_starts_or_gets_the_line_that_does(here, capsys, typed, fix):
    words = shlex.split(typed)
    if fix is not None:
        assert main([*words, "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["diagnostics"][-1]
        python = len(PROGRAM.split())
        words = error["fix"][python:-1]
        assert shlex.join(words) == fix
    assert starts(words), capsys.readouterr().err
