import sys

import peft
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from models.common.nf4 import Nf4Linear, Quantizer
from models.language.config import Lora
from tests.models.errors import error_of
from tests.models.language.adapters import exported
from tests.models.language.test_pretrained import CONFIGS, TEXT, batch_of
from training.inspection import architecture

CPU = torch.device("cpu")
THEIRS = transformers.BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
)


one_kind = pytest.mark.parametrize("folder", ["llama"], indirect=True)


@pytest.fixture
def make(folder, tmp_path, ready_task):
    """A task with adapters of `folder`, whose layers have 4 bits unless asked otherwise."""

    def made(quantize="nf4"):
        path = tmp_path / "text.txt"
        path.write_text(TEXT, encoding="utf-8")
        given = {"path": path, "pretrained": str(folder), "seq_len": 32}
        return ready_task(**given, lora=Lora(rank=4), quantize=quantize)

    return made


def layer(outputs=24, inputs=70, bias=True):
    torch.manual_seed(1)
    plain = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    return plain, Quantizer(CPU)._in_4_bits(plain)


def theirs_in_4_bits(folder):
    """The model of transformers with the layers of bitsandbytes, which compute in fp32."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(folder, dtype=torch.float32, quantization_config=THEIRS, device_map="cpu").eval()


def test_logits_are_those_of_transformers_with_bitsandbytes(make, folder):
    model, ids = make().build().eval(), torch.randint(10, 300, (2, 9))
    expected = theirs_in_4_bits(folder)(ids).logits
    torch.testing.assert_close(model(ids), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(make(None).build().eval()(ids), expected, atol=1e-3)


def test_only_adapters_are_trained_and_all_weights_are_counted(make):
    model, plain = make().build(), make(None).build()
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        n for n, p in plain.named_parameters() if p.requires_grad
    ]
    assert architecture(model).parameters == architecture(plain).parameters
    assert not any("codes" in name for name in model.state_dict())
    task = make()
    task.build()
    assert task._shape == make_shape(make)
    task.loss(model, batch_of(task)).sum.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def make_shape(make):
    task = make(None)
    task.build()
    return task._shape


def test_exported_adapters_and_the_merged_model_give_the_trained_logits(make, folder, tmp_path):
    ids, expected = exported(make(), tmp_path)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").float().eval()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
    adapted = peft.PeftModel.from_pretrained(theirs_in_4_bits(folder), tmp_path / "adapter").eval()
    torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_rounded_weight(dtype, bias):
    plain, rounded = layer(bias=bias)
    inputs = torch.randn(3, 5, 70, dtype=dtype, requires_grad=True)
    again = inputs.detach().clone().requires_grad_()
    output = rounded(inputs)
    weight = rounded.weight_in(dtype)
    expected = F.linear(again, weight, plain.bias.to(dtype) if bias else None)
    torch.testing.assert_close(output, expected, rtol=0.01 if bias else 0, atol=0.01)
    output.sum().backward()
    expected.sum().backward()
    assert torch.equal(inputs.grad, again.grad)
    assert 0 < (weight.float() - plain.weight).abs().mean() < 0.12 * plain.weight.abs().mean()


def test_under_autocast_the_product_has_16_bits():
    _, rounded = layer()
    inputs = torch.randn(5, 70, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = rounded(inputs)
    assert output.dtype is torch.bfloat16
    output.float().sum().backward()
    assert inputs.grad.dtype is torch.float32 and inputs.grad.any()


def test_the_backward_pass_keeps_the_bits_and_no_weight():
    _, rounded = layer(256, 1024)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        rounded(torch.randn(2, 1024, requires_grad=True))
    assert sum(x.nbytes for x in kept) < rounded.quantized_elements
    bits = 8 * sum(x.nbytes for x in rounded.buffers() if x is not rounded.constants)
    # A code of 4 bits, and 8 bits of a scale for 64 weights; then the fp32 scales of 256 of them.
    assert bits == rounded.quantized_elements * (4 + 8 / 64)
    assert rounded.constants.nbytes == 4 * (256 + 1 + 256 * 1024 // 64 // 256)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (7, 9), (64, 1)])
def test_a_layer_of_any_width_has_4_bits(shape):
    plain, rounded = layer(*shape)
    assert rounded.weight_in(torch.float32).shape == shape
    largest = plain.weight.abs().max()
    assert (rounded.weight_in(torch.float32) - plain.weight).abs().max() < 0.25 * largest


def test_a_cast_of_the_model_leaves_the_bits():
    _, rounded = layer()
    before = rounded.weight_in(torch.float32)
    assert torch.equal(rounded.bfloat16().weight_in(torch.float32), before)


def test_the_layer_is_compiled_as_one_graph():
    _, rounded = layer()
    compiled = torch.compile(rounded, backend="aot_eager", fullgraph=True)
    inputs, again = (torch.ones(4, 70, requires_grad=True) for _ in range(2))
    compiled(inputs).sum().backward()
    rounded(again).sum().backward()
    assert torch.equal(inputs.grad, again.grad)


@one_kind
def test_without_bitsandbytes_the_error_has_the_command(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    error = error_of(make)
    assert error.message == (
        "model.quantize nf4 needs the package bitsandbytes, which is not installed"
    )
    assert error.where == "model.quantize" and error.fix == "pip install 'bitsandbytes>=0.50'"


def test_a_device_without_4_bit_layers_is_an_error():
    error = error_of(Quantizer, torch.device("vulkan"))
    assert error.message == "bitsandbytes has no 4-bit layers for the device vulkan"
    assert "cpu, cuda" in error.allowed and error.fix == "--set model.quantize=null"


def test_a_model_without_linear_layers_is_an_error():
    inner = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())  # all are trained
    error = error_of(Quantizer(CPU).quantize, inner, [])
    assert error.message == (
        "model.quantize nf4 is for linear layers; the model of model.pretrained has none"
    )


def test_the_layers_have_no_weight_that_a_model_could_use_by_mistake():
    assert not hasattr(layer()[1], "weight") and isinstance(layer()[1], Nf4Linear)
