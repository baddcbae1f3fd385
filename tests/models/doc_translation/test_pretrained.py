import logging
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save_file

from gearshift.engines import deferred_init, state
from gearshift.models.doc_translation import model as model_parts
from gearshift.models.doc_translation.config import SIZES
from gearshift.models.doc_translation.pretrained import PARTS
from tests.models.errors import error_of

TINY = SIZES["tiny"]


@pytest.fixture
def make_task(make_task, dota):
    """A task of few texts, which are read faster than the cards."""
    return partial(make_task, path=dota)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """All three parts as transformers saves them, with weights of their own."""
    tmp_path = tmp_path_factory.mktemp("parts")
    torch.manual_seed(7)
    parts = {
        "global": model_parts.global_encoder(TINY.whole),
        "local": model_parts.local_encoder(TINY.local),
        "decoder": model_parts.decoder(TINY, 0.0),
    }
    for name, part in parts.items():
        part.save_pretrained(tmp_path / name)
    return tmp_path, parts


@pytest.fixture
def saved(originals, tmp_path):
    """The folder of the parts, which a test may change, and the parts."""
    folder, parts = originals
    return Path(shutil.copytree(folder, tmp_path, dirs_exist_ok=True)), parts


def edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load(path.read_bytes())
    save_file(change(tensors), path, metadata={"format": "pt"})


def build(make_task, folder, **settings):
    task = make_task(pretrained=str(folder), **settings)
    task.setup()
    torch.manual_seed(1)
    return task, task.build()


def test_every_part_gets_the_weights_of_its_folder(make_task, saved, caplog):
    folder, parts = saved
    with caplog.at_level(logging.INFO):
        task, model = build(make_task, folder)
    for name, part in parts.items():
        ours = dict(getattr(model, PARTS[name]).named_parameters())
        for key, theirs in part.named_parameters():
            assert torch.equal(ours[key], theirs), key
    counts = task.facts()["pretrained"]
    assert all(c["missing"] == c["unexpected"] == c["wrong_shape"] == 0 for c in counts.values())
    assert not model.global_encoder.embeddings.mask_token.requires_grad
    assert "pretrained global: 41 matched, 0 missing, 0 unexpected, 0 wrong_shape" in caplog.text


def test_the_weights_of_a_folder_may_be_deferred(ready_task, saved, rank_alone):
    folder, parts = saved
    task = ready_task(pretrained=str(folder))
    for rank in (0, 1):
        model, _ = deferred_init.build(task.build, rank_alone(rank))
        for name in ("local", "decoder"):
            for key, value in parts[name].named_parameters():
                own = model.get_parameter(f"{PARTS[name]}.{key}")
                assert state.is_deferred(own) and (rank or torch.equal(own, value)), key


def test_names_that_transformers_must_convert_are_left_to_it(make_task, saved):
    folder, parts = saved
    path = folder / "decoder"
    edit(path, lambda t: {k.replace("Norm.weight", "Norm.gamma"): v for k, v in t.items()})
    assert any("gamma" in name for name in load((path / "model.safetensors").read_bytes()))
    _, model = build(make_task, folder)
    expected = parts["decoder"].bert.encoder.layer[0].output.LayerNorm.weight
    assert torch.equal(model.decoder.bert.encoder.layer[0].output.LayerNorm.weight, expected)


def test_a_part_below_95_percent_is_an_error_unless_named(make_task, saved):
    folder, _ = saved
    edit(folder / "global", lambda t: {k: v for k, v in t.items() if "lambda" not in k})
    error = error_of(build, make_task, folder)
    assert error.message.startswith(f"'{folder / 'global'}' fills 90% of the part 'global'")
    assert "37 matched, 4 missing, 0 unexpected, 0 wrong_shape" in error.where
    assert error.fix == "--set 'model.partial=[global]'"
    task, _ = build(make_task, folder, partial=["global"])
    assert task.facts()["pretrained"]["global"]["missing"] == 4


def test_named_layers_of_a_deeper_decoder_are_used_and_the_others_dropped(make_task, saved, caplog):
    from dataclasses import replace

    folder, _ = saved
    deep = model_parts.decoder(replace(TINY, decoder_layers=3), 0.0)
    deep.save_pretrained(folder / "decoder")
    with caplog.at_level(logging.INFO):
        _, model = build(make_task, folder, take_layers=[2])
    weights = [d.bert.encoder.layer for d in (model.decoder, deep)]
    ours, theirs = weights[0][0].output.dense.weight, weights[1][2].output.dense.weight
    assert torch.equal(ours, theirs)
    assert "uses layers [2] of [0, 1, 2]" in caplog.text
    assert error_of(build, make_task, folder, take_layers=[5]).allowed == "0, 1, 2"


def test_the_tokenizer_of_a_pretrained_decoder_is_used(make_task, ready_task, saved, tmp_path):
    folder, _ = saved
    first = ready_task()
    first.vocabulary.inner.save(str(folder / "decoder" / "tokenizer.json"))
    task, model = build(make_task, folder, partial=["decoder"])
    assert task.vocabulary.size == first.vocabulary.size
    rows = model.decoder.bert.embeddings.word_embeddings.weight.shape[0]
    assert rows == -(-first.vocabulary.size // 8) * 8


def test_the_encoder_of_a_whole_donut_or_nougat_is_found(make_task, tmp_path):
    from transformers import VisionEncoderDecoderModel

    torch.manual_seed(7)
    encoder, decoder = model_parts.local_encoder(TINY.local), model_parts.decoder(TINY, 0.0)
    VisionEncoderDecoderModel(encoder=encoder, decoder=decoder).save_pretrained(tmp_path / "local")
    task, model = build(make_task, tmp_path)
    assert task.facts()["pretrained"]["local"]["missing"] == 0
    assert task.facts()["pretrained"]["local"]["unexpected"] == 0
    ours = dict(model.local_encoder.named_parameters())
    assert all(torch.equal(ours[name], p) for name, p in encoder.named_parameters())


def test_a_dit_trained_on_masked_patches_is_loaded_into_the_global_encoder(make_task, tmp_path):
    from transformers import BeitConfig, BeitForMaskedImageModeling

    config = BeitConfig(**{**model_parts.global_encoder(TINY.whole).config.to_dict()})
    config.use_mean_pooling = True  # as in the published weights: without the final norm
    BeitForMaskedImageModeling(config).save_pretrained(tmp_path / "global")
    task, _ = build(make_task, tmp_path)
    assert task.facts()["pretrained"]["global"]["missing"] == 2
