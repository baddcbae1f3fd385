import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from models.language.config import SIZES, Size
from models.language.model import Transformer

PARAMETERS = {
    "tiny": 124_224,
    "small": 887_936,
    "lite": 4_889_856,
    "full": 25_838_080,
    "124M": 123_587_328,
    "350M": 359_842_816,
    "1.3B": 1_317_373_952,
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_exactly_those_of_the_table(name):
    size = SIZES[name]
    with torch.device("meta"):
        model = Transformer(size)
    d, f = size.width, size.hidden
    formula = size.vocabulary * d + size.layers * (4 * d * d + 3 * d * f + 2 * d) + d
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name] == formula


def test_each_parameter_gets_a_gradient():
    model = Transformer(SIZES["tiny"])
    ids = torch.randint(0, 272, (2, 16))
    model(ids, labels=ids).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_a_hugging_face_folder_of_the_same_weights_gives_equal_logits(tmp_path, kv_heads):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    ours = Transformer(Size(64, 2, 4, 192, 272, 128), kv_heads)
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: w.shape for n, w in weights.items()
    }
    ours.load_state_dict(weights, strict=False)  # the tied output layer is stored once
    ids = torch.randint(0, 272, (2, 40))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_a_packed_row_gives_each_document_the_logits_it_has_alone():
    model = Transformer(SIZES["tiny"])
    first, second = torch.randint(0, 272, (1, 9)), torch.randint(0, 272, (1, 15))
    boundaries = torch.tensor([0, 9, 24], dtype=torch.int32)
    packed = model(torch.cat((first, second), dim=1), boundaries=boundaries)
    torch.testing.assert_close(packed[:, :9], model(first), atol=1e-5, rtol=1e-4)
    # The second document starts nine positions later; rotary attention is relative.
    torch.testing.assert_close(packed[:, 9:], model(second), atol=1e-5, rtol=1e-4)


def test_no_token_sees_a_later_one():
    model = Transformer(SIZES["tiny"])
    ids = torch.randint(0, 272, (1, 20))
    changed = ids.clone()
    changed[0, 12] = (changed[0, 12] + 1) % 272
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])


def test_weights_have_the_documented_deviations():
    torch.manual_seed(0)
    model = Transformer(SIZES["small"])
    layer = model.model.layers[1]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(
        math.sqrt(2 / 5 / 128), rel=0.03
    )
    scaled = math.sqrt(2 / 5 / 128) / math.sqrt(2 * SIZES["small"].layers)
    assert layer.mlp.down_proj.weight.std().item() == pytest.approx(scaled, rel=0.03)
    assert layer.self_attn.o_proj.weight.std().item() == pytest.approx(scaled, rel=0.03)
    assert torch.equal(model.model.norm.weight, torch.ones(128))


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_attention_kernels_agree(kernel):
    auto, other = Transformer(SIZES["tiny"]), Transformer(SIZES["tiny"], kernel=kernel)
    other.load_state_dict(auto.state_dict())
    ids = torch.randint(0, 272, (2, 24))
    boundaries = torch.tensor([0, 11, 24, 35, 48], dtype=torch.int32)
    for given in (None, boundaries):
        expected = auto(ids, boundaries=given)
        torch.testing.assert_close(other(ids, boundaries=given), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="compiling needs a C++ compiler")
def test_compiles_as_one_graph_and_gives_the_same_loss_and_gradients():
    model = Transformer(SIZES["tiny"])
    compiled = torch.compile(model, fullgraph=True)
    ids = torch.randint(0, 272, (2, 32))
    losses, gradients = [], []
    for call in (model, compiled):
        model.zero_grad()
        loss = call(ids, labels=ids)
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-4)
