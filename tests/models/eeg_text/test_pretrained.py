"""A pretrained BART as text decoder: logits, weights, tokenizer and errors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import deferred_init
from models.base import DataError
from models.common.subwords import train_byte_bpe
from models.eeg_text.tokenizer import END, HIDDEN, PAD, START
from tests.engines.test_deferred_init import Rank

TEXTS = ["the old man finds a drum", "the young child paints an island"] * 3
SIZES = {
    "vocab_size": 320,
    "d_model": 48,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 64,
}


def save_bart(folder, kind="BartForConditionalGeneration", **changes):
    """A small BART with weights and a tokenizer of its own, as transformers saves it."""
    import transformers

    torch.manual_seed(7)
    model = getattr(transformers, kind)(transformers.BartConfig(**SIZES | changes)).eval()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    train_byte_bpe(TEXTS, SIZES["vocab_size"], (START, PAD, END, HIDDEN)).save(
        str(folder / "tokenizer.json")
    )
    return model


def built(make_task, folder, **settings):
    task = make_task(pretrained=str(folder), **settings)
    task.setup()
    torch.manual_seed(1)
    return task, task.build()


def edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("changes", [{}, {"scale_embedding": True, "activation_function": "relu"}])
def test_logits_are_those_of_transformers(make_task, batch_of, tmp_path, changes):
    theirs = save_bart(tmp_path, **changes)
    task, model = built(make_task, tmp_path)
    batch = batch_of(task, "train")
    with torch.no_grad():
        memory = model(batch["eeg"], batch["eeg_mask"])
        expected = theirs(
            encoder_outputs=(model.decoder.bridge(memory),),
            attention_mask=batch["eeg_mask"][:, ::4].long(),
            decoder_input_ids=batch["text_ids"],
        ).logits
        logits = model.eval()(None, batch["eeg_mask"], batch["text_ids"], memory=memory)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert "loaded 57/57 tensors" in task.facts()["pretrained"]


@pytest.mark.parametrize("kind", ["BartModel", "BartForCausalLM"])
def test_a_folder_of_another_class_of_bart_has_the_same_decoder(make_task, tmp_path, kind):
    theirs = save_bart(tmp_path, kind).get_decoder()
    _, model = built(make_task, tmp_path)
    own = model.decoder.text.state_dict()
    for name, tensor in theirs.state_dict().items():
        if not name.startswith("final_logits_bias"):
            assert torch.equal(own[name.removeprefix("decoder.")], tensor), name
    assert not model.decoder.logits_bias.any()


def test_sentences_begin_and_end_as_bart_was_trained(make_task, tmp_path):
    from transformers import PreTrainedTokenizerFast

    save_bart(tmp_path)
    task, _ = built(make_task, tmp_path)
    text = "the old island </s> finds"
    library = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert (task.tokenizer.start, task.tokenizer.end, task.tokenizer.pad) == (2, 2, 1)
    tokens = task.tokenizer.encode(text)
    assert tokens == [0, *library(text, split_special_tokens=True).input_ids]
    assert task.tokenizer.decode([*tokens, 2, 40]) == text
    assert task.tokenizer.size <= 320


def test_a_gradient_reaches_every_parameter_and_not_the_bias(make_task, batch_of, tmp_path):
    save_bart(tmp_path)
    task, model = built(make_task, tmp_path, word_dropout=0.5)
    task.loss(model, batch_of(task, "train")).sum.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert "decoder.logits_bias" not in dict(model.named_parameters())


@pytest.mark.parametrize("rank", [0, 1])
def test_deferred_weights_are_read_from_the_files_later(make_task, tmp_path, rank):
    theirs = save_bart(tmp_path)
    task = make_task(pretrained=str(tmp_path))
    task.setup()
    model, weights = deferred_init.build(task.build, Rank(rank))
    for name, value in theirs.model.decoder.named_parameters():
        own = model.decoder.text.get_parameter(name)
        assert deferred_init.is_deferred(own)
        if rank == 0:  # the other one gets them from it
            weights._recorder.finish(own)
            assert torch.equal(own, value), name
    assert torch.equal(model.decoder.logits_bias, theirs.final_logits_bias)


def test_model_start_replaces_the_weights_and_keeps_the_sizes(make_task, tmp_path):
    save_bart(tmp_path)
    _, model = built(make_task, tmp_path)
    with torch.no_grad():
        model.decoder.text.layers[1].fc1.weight.fill_(3)
    run = tmp_path / "run"
    run.mkdir()
    state = {n: t.clone() for n, t in model.state_dict().items() if n != "decoder.output.weight"}
    save_file(state, run / "model.safetensors")
    again, model = built(make_task, tmp_path, start=str(run))
    assert model.decoder.text.layers[1].fc1.weight.eq(3).all()
    assert set(again.loaded) == {"start"}


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_other_tensors_than_declared_are_an_error(make_task, tmp_path, change):
    save_bart(tmp_path)
    name = "model.decoder.layers.1.fc1.weight"

    def apply(tensors):
        if change == "extra":
            tensors["model.decoder.layers.2.fc1.weight"] = torch.zeros(2)
        elif change == "shape":
            tensors[name] = torch.zeros(3, 3)
        else:
            del tensors[name]

    edit(tmp_path, apply)
    with pytest.raises(DataError) as error:
        built(make_task, tmp_path)
    matched = 57 if change == "extra" else 56
    assert error.value.message == (
        f"model.pretrained '{tmp_path}' is another decoder than its config.json declares: "
        f"{matched} of 57 tensors match"
    )
    where = "decoder.layers.2.fc1.weight" if change == "extra" else name.removeprefix("model.")
    assert error.value.where == where


def test_tensors_of_the_encoder_are_not_needed(make_task, tmp_path):
    save_bart(tmp_path)
    edit(tmp_path, lambda t: [t.pop(name) for name in list(t) if ".encoder." in name])
    built(make_task, tmp_path)


@pytest.mark.parametrize("kind", ["T5Config", "GPT2Config", "MBartConfig"])
def test_a_folder_of_another_layout_is_refused(make_task, tmp_path, kind):
    import transformers

    getattr(transformers, kind)().save_pretrained(tmp_path)
    task = make_task(pretrained=str(tmp_path))
    with pytest.raises(DataError) as error:
        task.setup()
    found = json.loads((tmp_path / "config.json").read_text())["model_type"]
    assert str(error.value).splitlines() == [
        f"model.pretrained '{tmp_path}' has model_type '{found}', whose decoder has another layout",
        f"  where         {tmp_path / 'config.json'}",
        "  allowed       bart",
    ]


def test_incomplete_folders_are_errors(make_task, tmp_path):
    with pytest.raises(DataError, match=r"has no config\.json of transformers"):
        built(make_task, tmp_path)
    save_bart(tmp_path)
    edit_config(tmp_path, tie_word_embeddings=False)
    with pytest.raises(DataError, match="has an output layer of its own"):
        built(make_task, tmp_path)
    edit_config(tmp_path, tie_word_embeddings=True, vocab_size=100)
    with pytest.raises(DataError, match="entries, and its decoder 100 embeddings"):
        built(make_task, tmp_path)
    edit_config(tmp_path, vocab_size=320)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no \*\.safetensors"):
        built(make_task, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        built(make_task, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="is not a tokenizer"):
        built(make_task, tmp_path)
