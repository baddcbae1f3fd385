"""Runs whose frozen weights have 4 bits: engines, checkpoints, exports and refusals."""

import json

import pytest
import torch
import transformers

from tests.models.language.test_nf4 import theirs_in_4_bits
from tests.models.language.test_pretrained import CONFIGS, save
from tests.runs.conftest import last


@pytest.fixture
def given(adapted):
    """The options of a run on a pretrained folder, whose layers have 4 bits."""
    return (*adapted, *("--set", "model.quantize=nf4", "--set", "optim.lr=0.02"))


def difference(program, run, other):
    """The largest one of a weight or moment of the two runs."""
    found, expected = last(program, run), last(program, other)
    assert list(found.shapes) == list(expected.shapes)
    return max(
        (found.tensor(kind, name) - expected.tensor(kind, name)).abs().max()
        for kind in ("weight", "exp_avg")
        for name in expected.names(kind)
    )


@pytest.mark.slow
def test_a_run_whose_base_has_4_bits_resumes_verifies_predicts_and_exports(program, inside, given):
    import peft  # imports the compiler of torch, for seconds

    whole = inside(*given, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    point = "whole/checkpoints/step-00000003"
    for engine, nproc, most in (("local", "1", 0), ("zero3", "2", 1e-5)):
        done = inside("resume", point, "--engine", engine, "--nproc", nproc, "--out", engine)
        assert done.returncode == 0, done.stderr
        assert difference(program, engine, "whole") <= most, engine
    wide = ("--set", "model.quantize=null", "--out", "wide")
    assert inside("resume", point, *wide).returncode == 2
    assert inside(*given, *wide).returncode == 0
    assert difference(program, "wide", "whole") > 1e-3  # so that the bound above means something

    stored = last(program, "whole")
    assert stored.shapes and all(".lora_" in name for name in stored.shapes)
    assert stored.facts["base"]["folder"] == str(program.folder / "base")
    assert not stored.buffer_shapes
    assert "identical" in inside("verify", "whole").stdout
    result = json.loads((program.folder / "whole/result.json").read_text())
    plain = transformers.AutoModelForCausalLM.from_pretrained(program.folder / "base")
    adapters = sum(torch.Size(shape).numel() for shape in stored.shapes.values())
    assert result["parameters"] == plain.num_parameters() + adapters
    for name in ("hf", "adapter", "safetensors"):
        assert inside("export", "whole", "--format", name).returncode == 0
    answers = [
        inside("predict", run, "--input", "ask 3", "--temperature", "1", "--max-tokens", "9")
        for run in ("whole", "whole/export-safetensors")
    ]
    assert answers[0].stdout == answers[1].stdout != "\n", answers[0].stderr
    load, ids = transformers.AutoModelForCausalLM.from_pretrained, torch.arange(10, 30)[None]
    merged = load(program.folder / "whole/export-hf").float().eval()(ids).logits
    base = theirs_in_4_bits(program.folder / "base")
    assert not torch.allclose(merged, base(ids).logits, atol=1e-3)
    adapted = peft.PeftModel.from_pretrained(base, program.folder / "whole/export-adapter").eval()
    torch.testing.assert_close(adapted(ids).logits, merged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("sets", "message", "allowed"),
    [
        (["model.lora.rank=null"], "model.lora.rank is null", "with model.lora.rank"),
        (
            ["precision=fp8", "device=cuda"],
            "is for products in 16 or 32 bits, and precision is fp8",
            "--precision bf16",
        ),
        (["model.quantize=int4"], "model.quantize", "nf4"),
    ],
)
def test_a_base_without_layers_in_4_bits_is_refused(run, tmp_path, sets, message, allowed):
    save(tmp_path / "base", CONFIGS["llama"]())
    given = ["model.quantize=nf4", "model.pretrained=base", "model.lora.rank=2", *sets]
    before = sorted(tmp_path.rglob("*"))
    options = [part for key in given for part in ("--set", key)]
    code, _, stderr = run("--model", "language", "--data", "mine.jsonl", *options)
    assert code == 2 and message in stderr and allowed in stderr, stderr
    assert sorted(tmp_path.rglob("*")) == before
