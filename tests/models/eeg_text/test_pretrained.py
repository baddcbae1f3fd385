import json

import pytest
import torch
from safetensors.torch import load, save_file

from gearshift.models.eeg_text import pretrained
from gearshift.models.eeg_text.config import SIZES
from gearshift.models.eeg_text.metric import generate
from gearshift.models.eeg_text.network import EegText, TextDecoder
from tests.models.eeg_text.pretrained_folders import VOCABULARY, save_bart
from tests.models.errors import error_of

TINY = SIZES["tiny"]
WIDTH = TINY.width
TEXT = "the old island </s> finds"


def loaded(folder):
    torch.manual_seed(1)
    size = pretrained.size_of(folder, TINY)
    decoder = TextDecoder(size, 1, 0.0, is_pretrained=True).eval()
    return decoder, pretrained.load(decoder, folder), size


def model_of(decoder):
    """The whole model, but for its encoder."""
    model = EegText.__new__(EegText)
    torch.nn.Module.__init__(model)
    model.decoder = decoder
    return model


def inputs():
    draws = torch.Generator().manual_seed(3)
    memory = torch.randn(2, 9, WIDTH, generator=draws)
    valid = torch.arange(9) < torch.tensor([[9], [5]])
    return memory, valid, torch.randint(4, 300, (2, 6), generator=draws)


def given(decoder, memory, valid):
    from transformers.modeling_outputs import BaseModelOutput

    states = BaseModelOutput(last_hidden_state=decoder.bridge(memory))
    return {"encoder_outputs": states, "attention_mask": valid.long()}


def edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_decoder_is_that_of_transformers_and_trains(tmp_path):
    theirs = save_bart(tmp_path)
    decoder, summary, size = loaded(tmp_path)
    memory, valid, ids = inputs()
    with torch.no_grad():
        given_ids = {"decoder_input_ids": ids, "use_cache": False}
        expected = theirs(**given(decoder, memory, valid), **given_ids).logits
        logits = decoder(memory, valid, ids)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert summary == f"loaded 57/57 tensors from {tmp_path}" and size.text_context == 64
    decoder.train()(memory, valid, ids).logsumexp(-1).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []


def test_generated_sentences_are_those_of_transformers(tmp_path):
    theirs = save_bart(tmp_path)
    decoder, _, size = loaded(tmp_path)
    memory, valid, _ = inputs()
    tokenizer = pretrained.tokenizer_of(tmp_path, size)
    written = generate(model_of(decoder), memory, valid.repeat_interleave(4, 1), 8, tokenizer)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "num_beams": 1, "do_sample": False}
    theirs.generation_config.forced_bos_token_id = None
    theirs.generation_config.forced_eos_token_id = None
    expected = theirs.generate(**given(decoder, memory, valid), **options, use_cache=False)
    assert expected[:, 0].tolist() == [tokenizer.start] * 2
    assert torch.equal(written, expected[:, 1:])


@pytest.mark.parametrize("kind", ["BartModel", "BartForCausalLM"])
def test_a_folder_of_another_class_of_bart_has_the_same_decoder(tmp_path, kind):
    theirs = save_bart(tmp_path, kind).get_decoder()
    decoder, summary, _ = loaded(tmp_path)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(decoder.text.state_dict()[name], tensor), name
    assert not decoder.bias.any()
    assert summary.startswith("loaded 56/56 tensors")


def test_a_task_trains_with_the_decoder_of_the_folder(ready_task, batch_of, tmp_path):
    save_bart(tmp_path)
    task = ready_task(pretrained=str(tmp_path), word_dropout=0.5)
    model = task.build()
    task.loss(model, batch_of(task)).sum.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert "loaded 57/57 tensors" in task.facts()["pretrained"]
    assert task.blocks(model)[-2:] == list(model.decoder.text.layers)
    assert task.flops_per_sample(model) > 0


def test_other_tensors_than_declared_are_an_error(tmp_path):
    save_bart(tmp_path)
    name = "model.decoder.layers.1.fc1.weight"
    extra = name.replace(".1.", ".2.", 1)
    whole = load((tmp_path / "model.safetensors").read_bytes())  # no mapping of the file
    for changed, difference in (
        ({name: None}, "missing: decoder.layers.1.fc1.weight"),
        ({extra: torch.zeros(2)}, "unexpected: decoder.layers.2.fc1.weight"),
        ({name: torch.zeros(3, 3)}, "another shape: decoder.layers.1.fc1.weight"),
    ):
        tensors = {n: t for n, t in (whole | changed).items() if t is not None}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        error = error_of(loaded, tmp_path)
        assert difference in error.message and error.where == str(tmp_path / "config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "t5"},
        {"model_type": "mbart"},
        {"scale_embedding": True},
        {"activation_function": "relu"},
        {"tie_word_embeddings": False},
    ],
)
def test_another_model_is_refused(tmp_path, change):
    save_bart(tmp_path)
    edit_config(tmp_path, **change)
    error = error_of(pretrained.size_of, tmp_path, TINY)
    assert next(iter(change)) in error.message and error.where == str(tmp_path / "config.json")


def test_sentences_begin_and_end_as_bart_was_trained(tmp_path):
    from transformers import PreTrainedTokenizerFast

    save_bart(tmp_path)
    found = pretrained.tokenizer_of(tmp_path, pretrained.size_of(tmp_path, TINY))
    library = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    plain = library(TEXT, split_special_tokens=True, add_special_tokens=False)
    assert (found.start, found.end, found.pad) == (2, 2, 1)
    assert found.inner.id_to_token(found.hidden) == "<mask>"
    tokens = found.encode(TEXT)
    assert tokens == [0, *plain.input_ids]
    assert found.decode([*tokens, VOCABULARY + 9, 2, 40]) == TEXT
