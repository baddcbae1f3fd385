import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines import deferred_init
from models.base import DataError
from models.eeg_text.metric import generate
from models.eeg_text.network import EegText, flops_per_sample
from models.eeg_text.pretrained import PretrainedDecoder
from models.eeg_text.pretrained_decoder import PretrainedTextDecoder
from tests.engines.test_deferred_init import Rank
from tests.models.eeg_text.pretrained_folders import (
    KINDS,
    T5_1_1,
    save_bart,
    save_model,
    untied_output,
)
from tests.models.errors import error_of

VARIANTS = {
    **{kind: (kind, None, {}) for kind in KINDS if kind != "switch_transformers"},
    "bart scaled": ("bart", None, {"scale_embedding": True, "activation_function": "relu"}),
    "bart without shared embeddings": ("bart", None, {"tie_word_embeddings": False}),
    "t5 1.1": ("t5", untied_output, T5_1_1),
}
WIDTH = 16


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a variant, and its model as transformers loads it."""
    from transformers import AutoModelForSeq2SeqLM

    made = {}

    def save(name):
        if name not in made:
            kind, change, settings = VARIANTS[name]
            folder = tmp_path_factory.mktemp(kind)
            save_model(folder, kind, change, **settings)
            made[name] = folder, AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        return made[name]

    return save


def loaded(folder):
    torch.manual_seed(1)
    found = PretrainedDecoder(folder)
    decoder = PretrainedTextDecoder(WIDTH, found.model, 0.0).eval()
    return decoder, found.load(decoder), found


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
    from transformers.modeling_outputs import MoEModelOutput

    states = MoEModelOutput(last_hidden_state=decoder.bridge(memory))
    return {"encoder_outputs": states, "attention_mask": valid.long()}


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


@pytest.mark.parametrize("name", VARIANTS)
def test_a_decoder_is_that_of_transformers_and_trains(saved, name):
    folder, theirs = saved(name)
    decoder, summary, found = loaded(folder)
    memory, valid, ids = inputs()
    later = ids.clone()
    later[:, 4] += 1
    with torch.no_grad():
        given_ids = {"decoder_input_ids": ids, "use_cache": False}
        expected = theirs(**given(decoder, memory, valid), **given_ids).logits
        logits = decoder(memory, valid, ids)
        # Padded EEG and later tokens have no effect.
        padded = decoder(torch.where(valid[..., None], memory, 5.0), valid, ids)
        before = decoder(memory, valid, later)[:, :4]
        assert not torch.allclose(decoder(memory + 1, valid, ids), logits)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded, logits)
    torch.testing.assert_close(before, logits[:, :4])
    names = list(load_file(folder / "model.safetensors"))
    count = len(names) - sum("encoder." in name for name in names)
    assert summary == f"loaded {count}/{count} tensors from {folder}"
    more, less = (flops_per_sample(model_of(decoder), tokens, 0.0) for tokens in (3, 2))
    # The bridge, and keys and values of two layers of width 48.
    assert more - less == 6.0 * (WIDTH * 48 + 2 * 2 * 48 * 48)
    decoder.train()(memory, valid, ids).logsumexp(-1).sum().backward()
    frozen = {n for n, p in decoder.named_parameters() if not p.requires_grad}
    assert [n for n, p in decoder.named_parameters() if p.grad is None and n not in frozen] == []
    assert all(n.endswith(("embed_positions.weight", "shared.weight")) for n in frozen)
    assert len(decoder.layers) == 2
    assert found.context == (None if "t5" in name else 64)


def test_operations_of_other_layers_are_unknown(saved):
    model = model_of(loaded(saved("bart")[0])[0])
    model.decoder.text.matrix = torch.nn.Parameter(torch.zeros(2, 2))
    assert flops_per_sample(model, 3, 2.0) is None


def test_generated_sentences_are_those_of_transformers(saved):
    folder, theirs = saved("t5 1.1")
    decoder, _, found = loaded(folder)
    model = model_of(decoder)
    memory, valid, _ = inputs()
    tokenizer = found.tokenizer
    written = generate(model, memory, valid.repeat_interleave(4, 1), 8, tokenizer)
    expected = theirs.generate(
        **given(decoder, memory, valid),
        max_new_tokens=8,
        min_new_tokens=8,
        do_sample=False,
        num_beams=1,
        use_cache=False,
    )
    assert expected[:, 0].tolist() == [tokenizer.start] * 2 == [tokenizer.pad] * 2
    assert torch.equal(written, expected[:, 1:])


@pytest.mark.parametrize("kind", ["BartModel", "BartForCausalLM"])
def test_a_folder_of_another_class_of_bart_has_the_same_decoder(tmp_path, kind):
    theirs = save_bart(tmp_path, kind).get_decoder()
    decoder, summary, _ = loaded(tmp_path)
    memory, valid, ids = inputs()
    with torch.no_grad():
        states = {"encoder_hidden_states": decoder.bridge(memory), "use_cache": False}
        found = theirs(input_ids=ids, encoder_attention_mask=valid.long(), **states)
        expected = found.last_hidden_state @ theirs.embed_tokens.weight.T
        torch.testing.assert_close(decoder(memory, valid, ids), expected)
    own = decoder.text.get_decoder().state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(own[name], tensor), name
    assert not decoder.text.final_logits_bias.any()
    assert summary.startswith("loaded 56/56 tensors")


def test_a_task_trains_with_the_decoder_of_the_folder(make_task, batch_of, tmp_path):
    save_bart(tmp_path)
    task, model = built(make_task, tmp_path, word_dropout=0.5)
    task.loss(model, batch_of(task)).sum.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert "loaded 57/57 tensors" in task.facts()["pretrained"]
    assert model.blocks()[-2:] == list(model.decoder.text.model.decoder.layers)
    assert task.flops_per_sample(model) > 0


def test_dropout_is_the_setting_and_no_layer_is_dropped(tmp_path):
    save_model(tmp_path, "t5", dropout_rate=0.3)
    parsed = PretrainedDecoder(tmp_path).model.parsed(0.05)
    assert parsed.dropout_rate == 0.05
    save_model(tmp_path, "bart", dropout=0.3, attention_dropout=0.2, decoder_layerdrop=0.5)
    parsed = PretrainedDecoder(tmp_path).model.parsed(0.05)
    assert (parsed.dropout, parsed.attention_dropout, parsed.decoder_layerdrop) == (0.05, 0, 0)


@pytest.mark.parametrize("name", ["t5 1.1", "marian"])
def test_deferred_weights_are_read_from_the_files_later(ready_task, saved, name):
    folder, theirs = saved(name)
    task = ready_task(pretrained=str(folder))
    values = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    for rank in (0, 1):
        model, weights = deferred_init.build(task.build, Rank(rank))
        for part, own in model.decoder.text.named_parameters():
            if own.requires_grad:  # positions of Marian are computed, not read
                assert deferred_init.is_deferred(own)
                if rank == 1:  # it gets them from the other one
                    continue
                weights._recorder.finish(own)
            assert torch.equal(own, values[part]), part
        for part, buffer in model.decoder.text.named_buffers():
            assert torch.equal(buffer, values[part]), part


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_other_tensors_than_declared_are_an_error(tmp_path, kind):
    save_model(tmp_path, kind)
    name = {
        "bart": "model.decoder.layers.1.fc1.weight",
        "t5": "decoder.block.1.layer.2.DenseReluDense.wi.weight",
    }[kind]
    extra = name.replace(".1.", ".2.", 1)
    whole = load_file(tmp_path / "model.safetensors")
    for changed, difference in (
        ({name: None}, f"missing: {name}"),
        ({extra: torch.zeros(2)}, f"unexpected: {extra}"),
        ({name: torch.zeros(3, 3)}, f"another shape: {name} [3, 3] instead of [72, 48]"),
    ):
        tensors = {n: t for n, t in (whole | changed).items() if t is not None}
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert str(error_of(loaded, tmp_path)).splitlines() == [
            f"the weights in model.pretrained '{tmp_path}' do not fit its config.json: {difference}",
            f"  where         {tmp_path / 'config.json'}",
            "  allowed       exactly the tensors of its decoder; those of its encoder are not read",
        ]


def test_tensors_of_encoder_and_other_heads_are_not_needed(tmp_path):
    save_bart(tmp_path)
    edit(tmp_path, lambda t: [t.pop(name) for name in list(t) if ".encoder." in name])
    edit(tmp_path, lambda t: t.update({"classification_head.dense.weight": torch.zeros(2)}))
    assert "57/57" in loaded(tmp_path)[1]


def test_code_of_a_folder_is_not_run(tmp_path):
    save_model(tmp_path, "t5")
    edit_config(tmp_path, auto_map={"AutoModelForSeq2SeqLM": "own.Model", "AutoConfig": "own.C"})
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    assert "T5ForConditionalGeneration" in type(loaded(tmp_path)[0].text).__name__
    edit_config(tmp_path, model_type="own")
    with pytest.raises(DataError, match=r"cannot be loaded: .* contains custom code"):
        loaded(tmp_path)


def test_texts_are_no_longer_than_the_positions_of_the_decoder(ready_task, tmp_path):
    save_bart(tmp_path, max_position_embeddings=8)
    task = ready_task(pretrained=str(tmp_path), text_len=40)
    assert task.texts.steps == 8 and task.texts.cut > 0
