import sys

import pytest
import torch
import transformers

from gearshift.training.inspection import architecture
from tests.models.errors import error_of
from tests.models.language.test_lora import exported
from tests.models.language.test_pretrained import batch_of

CPU = torch.device("cpu")
THEIRS = transformers.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
)


pytestmark = pytest.mark.parametrize("folder", ["llama"], indirect=True)


def theirs_in_4_bits(folder):
    """The model of transformers with the layers of bitsandbytes, which compute in fp32."""
    import bitsandbytes  # imports the compiler of torch, for seconds

    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(folder, dtype=torch.float32, quantization_config=THEIRS, device_map="cpu").eval()
    for layer in model.modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            # On processors with AVX512-BF16 it else computes in bf16, and rows under 64 wrongly.
            layer.support_avx512bf16_for_cpu = False
    return model


def test_logits_are_those_of_transformers_with_bitsandbytes(make, folder):
    model, ids = make("nf4").build().eval(), torch.randint(10, 300, (2, 9))
    expected = theirs_in_4_bits(folder)(ids).logits
    torch.testing.assert_close(model(ids), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(make().build().eval()(ids), expected, atol=1e-3)


def test_only_adapters_are_trained_and_all_weights_are_counted(make):
    task, in_32 = make("nf4"), make()
    model, plain = task.build(), in_32.build()
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        n for n, p in plain.named_parameters() if p.requires_grad
    ]
    assert architecture(model).parameters == architecture(plain).parameters
    assert not any("codes" in name for name in model.state_dict())
    assert task.flops_per_sample(model) == in_32.flops_per_sample(plain)
    task.loss(model, batch_of(task)).sum.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_exported_adapters_and_the_merged_model_give_the_trained_logits(make, folder, tmp_path):
    import peft  # imports the compiler of torch, for seconds

    ids, expected = exported(make("nf4"), tmp_path)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").float().eval()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
    adapted = peft.PeftModel.from_pretrained(theirs_in_4_bits(folder), tmp_path / "adapter").eval()
    torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_without_bitsandbytes_the_error_has_the_command(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    error = error_of(make, "nf4")
    assert error.message == (
        "model.quantize nf4 needs the package bitsandbytes, which is not installed"
    )
    assert error.where == "model.quantize" and error.fix == "pip install 'bitsandbytes>=0.50'"
