"""Runs that train adapters: checkpoints without the base weights, and exports.

test_nf4.py has their engines.
"""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.runs.conftest import last


@pytest.mark.slow
def test_a_run_verifies_exports_and_refuses_another_base(program, inside, adapted):
    assert inside(*adapted, "--out", "run").returncode == 0
    facts = last(program, "run").facts["base"]
    assert facts["folder"] == str(program.folder / "base") and len(facts["sha256"]) == 64
    assert "identical" in inside("verify", "run").stdout
    for name in ("hf", "adapter"):
        assert inside("export", "run", "--format", name).returncode == 0
    assert "allowed       adapter, hf" in inside("export", "run", "--format", "onnx").stderr
    assert inside("export", "run", "--format", "safetensors").returncode == 0
    answers = [
        inside("predict", run, "--input", "ask 3", "--temperature", "1", "--max-tokens", "9")
        for run in ("run", "run/export-safetensors")
    ]
    assert answers[0].stdout == answers[1].stdout != "\n", answers[0].stderr
    for name in ("hf", "adapter"):
        folder = program.folder / f"run/export-{name}"
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        turns = [{"role": "user", "content": "ask 3"}, {"role": "assistant", "content": "no"}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        assert text == "<|start|>User: ask 3\nAssistant: no<|end|>"
    merged = load_file(program.folder / "run/export-hf/model.safetensors")
    base = load_file(program.folder / "base/model.safetensors")
    assert merged.keys() == base.keys()
    assert any(not torch.equal(merged[name], base[name]) for name in base)
    save_file(
        {name: value + 1 for name, value in base.items()},
        program.folder / "base/model.safetensors",
        {"format": "pt"},
    )
    done = inside("resume", "run/checkpoints/step-00000003", "--out", "again")
    assert done.returncode == 2
    assert facts["sha256"] in done.stderr
    for run in ("run", "run/export-safetensors"):
        done = inside("predict", run, "--input", "ask 3")
        assert done.returncode == 2
        assert facts["sha256"] in done.stderr and "fix" not in done.stderr


@pytest.mark.slow
def test_a_pretrained_folder_may_move(program, inside, adapted):
    assert inside(*adapted, "--out", "run").returncode == 0
    (program.folder / "base").rename(program.folder / "moved")
    resume = ("resume", "run/checkpoints/step-00000003", "--out", "again")
    done = inside(*resume)
    assert done.returncode == 2
    assert "--set model.pretrained=DIR" in done.stderr
    for command in (("verify", "run"), resume):
        assert inside(*command, "--set", "model.pretrained=moved").returncode == 0, command
    assert "model.pretrained: moved" not in (program.folder / "run/settings.yaml").read_text()
    expected, found = last(program, "run"), last(program, "again")
    for name in expected.shapes:
        assert torch.equal(expected.tensor("weight", name), found.tensor("weight", name))
