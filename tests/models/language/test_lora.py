import pytest
import torch
import transformers
from safetensors.torch import save_file

from gearshift.models.language.config import Lora
from gearshift.models.language.pretrained import add_adapters
from tests.models.errors import error_of
from tests.models.language.test_pretrained import CONFIGS, TEXT, batch_of


def exported(task, folder):
    """Random adapters, written to `folder`/adapter and merged to `folder`/merged.

    Returns tokens [2, 9] and the logits of the model with these adapters.
    """
    model = task.build().eval()
    torch.manual_seed(0)
    weights = {n: p.data.normal_(std=0.2) for n, p in model.named_parameters() if p.requires_grad}
    ids = torch.randint(10, 300, (2, 9))
    expected = model(ids)
    for name, is_merged in (("adapter", False), ("merged", True)):
        (folder / name).mkdir()
        task.write_adapted(weights, folder / name, merged=is_merged)
    return ids, expected


def test_only_adapters_are_trained_and_begin_without_effect(make, folder):
    task = make()
    model, batch = task.build(), batch_of(task)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).float().eval()
    layers = sum(
        type(m).__name__ in ("Linear", "Conv1D")
        for m in plain.modules()
        if m is not plain.get_output_embeddings()
    )
    assert len(trained) == 2 * layers
    loss = task.loss(model.eval(), batch).sum
    logits = plain(input_ids=batch["input_ids"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


one_kind = pytest.mark.parametrize("folder", ["llama"], indirect=True)


@one_kind
def test_each_name_must_be_of_a_layer(make):
    error = error_of(make(layers=["q_proj", "vproj"]).build)
    assert "vproj" in error.message and error.where == "model.lora.layers"
    assert error.did_you_mean == "v_proj" and "down_proj" in error.allowed


def test_a_layer_that_shares_its_weight_is_refused():
    config = CONFIGS["llama"]()
    config.tie_word_embeddings = True
    inner = transformers.AutoModelForCausalLM.from_config(config)
    error = error_of(lambda: add_adapters(inner, Lora(rank=2, layers=["embed_tokens"])))
    assert "embed_tokens" in error.message and error.where == "model.lora.layers"


def test_exported_adapters_and_the_merged_model_give_equal_logits(make, folder, tmp_path):
    import peft  # imports the compiler of torch, for seconds

    ids, expected = exported(make(), tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).float().eval()
    assert not torch.allclose(plain(ids).logits, expected, atol=0.01)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").float().eval()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)
    adapted = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-4)
    base = transformers.AutoTokenizer.from_pretrained(folder)
    for name in ("merged", "adapter"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert tokenizer(TEXT) == base(TEXT)
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {
        *("adapter_config.json", "adapter_model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }


@one_kind
def test_adapters_start_from_those_of_another_run(make, tmp_path):
    model = make().build()
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.add_(0.1)
    save_file(adapters, tmp_path / "adapters.safetensors")
    task = make(start=str(tmp_path / "adapters.safetensors"))
    found = dict(task.build().named_parameters())
    assert all(torch.equal(found[name], parameter) for name, parameter in adapters.items())
    count = len(adapters)
    assert task.facts()["start"].startswith(f"loaded {count}/{count} tensors from ")
