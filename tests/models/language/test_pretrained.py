import json

import pytest
import torch
from safetensors.torch import load, save_file
from torch import nn
from torch.nn import functional as F

from gearshift.engines import deferred_init
from gearshift.engines.state import is_deferred
from gearshift.models.base import DataError
from gearshift.models.common import hugging_face
from gearshift.models.language import pretrained
from gearshift.models.language import subword_tokenizers as bpe
from gearshift.models.language.model import Head, decoder_layers
from gearshift.models.language.pretrained import PLAIN_HEADS, Pretrained
from gearshift.training.optim.groups import lr_factors
from gearshift.training.settings import Optim
from tests.models.errors import error_of

transformers = pytest.importorskip("transformers")

TEXT = "\n\n".join(
    f"Sentence {i} tells that {i} is {'even' if i % 2 == 0 else 'odd'}." for i in range(200)
)


def save(folder, config):
    """A folder of a random model with a tokenizer, in the layout of a download."""
    inner = bpe.train([TEXT], 320).inner
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bpe.START, eos_token=bpe.END
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=False,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=320, n_embd=32, n_layer=3, n_head=4, n_positions=64,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=320, hidden_size=32, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32, dropout=0.0,
    ),
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    return save(tmp_path / "model", CONFIGS[request.param]())


one_kind = pytest.mark.parametrize("folder", ["llama"], indirect=True)
tied_and_untied = pytest.mark.parametrize("folder", ["llama", "gpt2"], indirect=True)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def task(folder, text, ready_task):
    task = ready_task(path=text, pretrained=str(folder), seq_len=32)
    return task


@pytest.fixture
def llama(tmp_path):
    return save(tmp_path / "model", CONFIGS["llama"]())


@tied_and_untied
def test_learning_rates_decay_from_the_last_layer_down_to_the_embeddings(task):
    model = task.build()
    layers, optim = task.blocks(model), Optim(groups={"layers": 2.0}, layer_decay=0.5)
    factors = lr_factors(optim, model, task)
    for number, layer in enumerate(layers):
        names = {
            name for name, p in model.named_parameters() if any(p is q for q in layer.parameters())
        }
        assert {factors[name][1] for name in names} == {2.0 * 0.5 ** (len(layers) - number)}
    # Token embeddings, and those of positions where the model has some.
    below = {name for name, (part, _) in factors.items() if part == "embedding"}
    assert below == {
        name
        for name, p in model.named_parameters()
        if "embed" in name or ".wte" in name or ".wpe" in name
    }
    assert {factors[name][1] for name in below} == {0.5 ** (len(layers) + 1)}


def batch_of(task, count=4):
    samples = task.data("train")
    return task.collate([samples.sample(i, None) for i in range(len(samples))[-count:]])


def test_weights_layers_and_loss_are_those_of_transformers(task, folder):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).float().eval()
    model, batch = task.build(), batch_of(task)
    found, expected = model.inner.state_dict(), theirs.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    blocks = task.blocks(model)
    names = [name for name, module in model.named_modules() if module in blocks]
    assert [name.rsplit(".", 1)[1] for name in names] == ["0", "1", "2"] and len(blocks) == 3
    assert not batch["attention_mask"].all()  # the end of a document is a short row
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"].long()}
    logits = theirs(**given).logits
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum")
    torch.testing.assert_close(task.loss(model, batch).sum, loss)
    mask = batch["attention_mask"]
    nats, _ = model(batch["input_ids"], labels=batch["labels"], attention_mask=mask, measure=True)
    torch.testing.assert_close(nats.sum(), loss)


def test_names_that_transformers_must_convert_are_left_to_it(llama):
    path = llama / "model.safetensors"
    tensors = {f"old.{name}": value for name, value in load(path.read_bytes()).items()}
    assert pretrained._by_name(llama, pretrained.read_config(llama)) is not None
    save_file(tensors, path, {"format": "pt"})
    assert pretrained._by_name(llama, pretrained.read_config(llama)) is None


def test_a_base_model_without_its_prefix_is_read(tmp_path):
    folder = save(tmp_path / "model", CONFIGS["gpt2"]())
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    save_file(
        {n.removeprefix("transformer."): x for n, x in tensors.items()}, path, {"format": "pt"}
    )
    inner, _, unread = pretrained.open_inner(folder)
    assert len(unread) == len(tensors)
    pretrained.read_weights(inner, unread, folder)
    for name, value in tensors.items():
        assert torch.equal(inner.state_dict()[name], value), name


@tied_and_untied
def test_only_rank_0_reads_the_weights(task, rank_alone):
    expected = task.build().state_dict()
    for rank in (0, 1):
        model, weights = deferred_init.build(task.build, rank_alone(rank))
        assert all(map(is_deferred, model.parameters()))
        assert len(weights) == len(list(model.parameters()))
        for name, value in expected.items():
            assert rank or torch.equal(model.state_dict()[name], value), name


def test_an_output_layer_with_more_than_a_product_keeps_its_logits(tmp_path, text, ready_task):
    config = transformers.GraniteConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        logits_scaling=4.0,
    )  # fmt: skip
    folder = save(tmp_path / "model", config)
    task = ready_task(path=text, pretrained=str(folder), seq_len=32)
    model, batch = task.build(), batch_of(task)
    assert type(model.inner.lm_head) is nn.Linear
    logits = model(batch["input_ids"])
    expected = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum")
    torch.testing.assert_close(task.loss(model, batch).sum, expected)


@pytest.mark.parametrize("kind", sorted({*PLAIN_HEADS} - {"gpt2", "opt"}))
def test_a_known_output_layer_gives_the_logits_of_transformers(kind):
    config = transformers.CONFIG_MAPPING[kind](
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, pad_token_id=0,
        max_position_embeddings=64,
    )  # fmt: skip
    inner = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(1, 9)[None]
    expected = F.cross_entropy(inner(ids).logits[0], ids[0], reduction="sum")
    model = Pretrained(inner)
    assert type(inner.get_output_embeddings()) is Head
    torch.testing.assert_close(model(ids, ids), expected)


def test_the_experts_of_a_layer_are_not_taken_for_layers():
    def layer():
        return nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(8))})

    model = nn.ModuleDict({"layers": nn.ModuleList(layer() for _ in range(3))})
    assert decoder_layers(model, 3) == list(model["layers"])


@one_kind
def test_no_row_holds_two_documents(task):
    assert batch_of(task)["boundaries"].shape == (5,)
    samples = task.data("train")
    start = task.tokenizer.start
    rows = (samples.sample(i, None) for i in range(len(samples)))
    assert not any((row.inputs[1:] == start).any() for row in rows)


def edit_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def loaded(folder):
    """The model in `folder` with all weights, and what its files have."""
    inner, coverage, unread = pretrained.open_inner(folder)
    pretrained.read_weights(inner, unread, folder)
    return inner, coverage


def test_weights_that_do_not_cover_the_configuration_are_refused(llama):
    edit_config(llama, num_hidden_layers=4)
    error = error_of(loaded, llama)
    assert error.where == str(llama / "config.json")
    assert "missing: model.layers.3.input_layernorm.weight" in error.message
    edit_config(llama, num_hidden_layers=3, intermediate_size=48)
    shape = r"another shape: model\.layers\.0\.mlp\.down_proj\.weight"
    with pytest.raises(DataError, match=rf"{shape}, .* and 6 more"):
        loaded(llama)
    edit_config(llama, intermediate_size=64)
    path = llama / "model.safetensors"
    tensors = load(path.read_bytes())
    tensors["model.other.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(DataError, match=r"missing: model\.norm\.weight; unexpected: model\.other"):
        loaded(llama)


def test_a_model_of_too_many_layers_or_modules_is_not_built(llama, monkeypatch):
    edit_config(llama, num_hidden_layers=10**10)
    error = error_of(loaded, llama)
    assert error.where == str(llama / "config.json")
    assert "num_hidden_layers is 10000000000" in error.message
    edit_config(llama, num_hidden_layers=3)
    monkeypatch.setattr(hugging_face, "_MOST_MODULES", 20)
    assert "more than 20 modules" in error_of(loaded, llama).message
    monkeypatch.undo()
    assert loaded(llama)[1].render() == ""


def test_tied_weights_and_buffers_of_older_versions_are_expected(tmp_path):
    folder = save(tmp_path / "model", CONFIGS["gpt2"]())
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(tensors, path, {"format": "pt"})
    assert loaded(folder)[1].render() == ""


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertLMHeadModel", "T5Model"])
def test_a_model_that_is_not_causal_is_refused(tmp_path, kind):
    sizes = {"vocab_size": 320, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind.startswith("Bert"):
        config = transformers.BertConfig(**sizes, hidden_size=32, intermediate_size=32)
    else:
        config = transformers.T5Config(**sizes, d_model=32, d_ff=32, d_kv=8)
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    with pytest.raises(
        DataError, match=r"is no causal language model: its model_type is (bert|t5)"
    ):
        loaded(tmp_path)
    if kind == "BertLMHeadModel":
        edit_config(tmp_path, is_decoder=True)
        assert loaded(tmp_path)[1].random == ()


@tied_and_untied
def test_model_start_replaces_weights_and_freezes_layers(task, folder, text, ready_task, tmp_path):
    """Tied weights are stored once, as in a checkpoint."""
    model = task.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {n: b for n, b in model.state_dict().items() if n in dict(model.named_buffers())}
    save_file(own | buffers, tmp_path / "model.safetensors")
    settings = {"path": text, "pretrained": str(folder), "seq_len": 32}
    second = ready_task(**settings, start=str(tmp_path / "model.safetensors"), freeze_layers=1)
    loaded = second.build().train()
    assert all(torch.equal(own[name], p) for name, p in loaded.named_parameters())
    frozen = {name for name, p in loaded.named_parameters() if not p.requires_grad}
    first_layer = second.blocks(loaded)[0]
    expected = [*loaded.inner.get_input_embeddings().parameters(), *first_layer.parameters()]
    assert len(frozen) == len(expected) and not first_layer.training
    second.loss(loaded, batch_of(second)).sum.backward()
    assert all((p.grad is not None) == p.requires_grad for p in loaded.parameters())


def test_a_model_of_sentencepiece_names_the_package_that_reads_it(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    monkeypatch.setattr(hugging_face, "find_spec", {}.get)
    error = error_of(hugging_face.read_tokenizer, tmp_path)
    assert error.hint.startswith("pip install sentencepiece")
