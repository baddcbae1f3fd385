import io
import shutil

import numpy as np
import pytest
import torch

from gearshift.models.doc_translation import embedded
from gearshift.models.doc_translation.decoding import beam_search, texts
from tests.models import tasks

COUNT = 16


@pytest.fixture
def without_data(make_task, tmp_path):
    """A task built from a run folder whose data no longer exists, and a model of varied texts."""

    def vary(model):
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))

    def make(data="embedded:cards", **settings):
        settings = {"max_new_tokens": COUNT, **settings}
        return tasks.without_data(make_task, tmp_path / "run", data, vary, **settings)

    return make


@pytest.fixture
def card_files(tmp_path):
    """Embedded cards as images in a folder, in the order of their names."""
    folder = tmp_path / "pages"
    (folder / "deep").mkdir(parents=True)
    pages = embedded.read_cards().pages[:3]
    for page, name in zip(pages, ("a.png", "b c.tif", "deep/a.bmp"), strict=True):
        page.image().save(folder / name)
    return folder, pages


def test_each_image_has_its_translation_with_data(
    without_data, ready_task, card_files, monkeypatch
):
    task, model = without_data()
    assert task.beams == 4
    folder, pages = card_files
    found = list(task.predict(model, folder))
    full = ready_task()
    full.records = pages
    batch = full.collate([full.sample(i, i, None) for i in range(3)])
    with torch.no_grad():
        memory = model(batch["page_global"], batch["page_local"])
        expected = texts(beam_search(model, memory, COUNT, full.vocabulary, 4), full.vocabulary)
    assert [p.name for p in found] == ["a", "b-c", "deep-a"]
    assert [p.files[".md"].decode() for p in found] == [f"{text}\n" for text in expected]
    assert len(set(expected)) > 1
    assert list(task.predict(model, folder)) == found
    assert next(task.predict(model, folder / "b c.tif")).files == found[1].files
    first, *others = [page.image() for page in pages]
    path = folder.parent / "scan.tiff"
    first.save(path, save_all=True, append_images=others)
    scanned = list(task.predict(model, path))
    assert [p.name for p in scanned] == ["scan-page-1", "scan-page-2", "scan-page-3"]
    assert [p.text for p in scanned] == [p.text for p in found]
    monkeypatch.setattr(task.vocabulary, "decode", lambda tokens: "# a\x1b[2Jb\n")
    prediction = next(task.predict(model, folder))
    assert prediction.text == "# a\N{REPLACEMENT CHARACTER}[2Jb\n"  # nothing controls a terminal
    assert prediction.files[".md"] == b"# a\x1b[2Jb\n\n"


def test_a_folder_in_the_dota_layout_needs_images_only(without_data, dota):
    names = sorted(path.stem for path in (dota / "imgs").iterdir())
    other = dota.with_name("new")
    shutil.copytree(dota / "imgs", other / "imgs")
    task, model = without_data(dota, beams=1)
    found = [p.name for p in task.predict(model, other)]
    assert found == [f"imgs-{name}" for name in names]


def test_the_vocabulary_of_a_pretrained_decoder_is_kept(make_task, ready_task, tmp_path):
    first = ready_task()
    decoder = tmp_path / "folder" / "decoder"
    decoder.mkdir(parents=True)
    first.vocabulary.inner.save(str(decoder / "tokenizer.json"))
    task = make_task(tmp_path / "run", pretrained=str(tmp_path / "folder"))
    (tmp_path / "run").mkdir()
    task.setup()
    shutil.rmtree(tmp_path / "folder")
    later = make_task(tmp_path / "run", pretrained=str(tmp_path / "folder"), encoder="deleted")
    later.setup_without_data()
    assert later.size == task.size != first.size
    assert later.vocabulary.encode("korm duna") == first.vocabulary.encode("korm duna")
    rows = later.build().decoder.bert.embeddings.word_embeddings.weight.shape[0]
    assert rows == task.size.vocabulary


def test_stage_encoder_writes_features(without_data, ready_task, card_files):
    task, model = without_data(stage="encoder")
    folder, pages = card_files
    found = list(task.predict(model, folder))
    assert [p.name for p in found] == ["a", "b-c", "deep-a"]
    full = ready_task()
    full.records = pages
    batch = full.collate([full.sample(i, i, None) for i in range(3)])
    seen = {}
    for name in ("global_encoder", "local_encoder"):
        layer = getattr(model, name)
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out[0]}))
    with torch.no_grad():
        model(batch["page_global"], batch["page_local"])
    for page, prediction in enumerate(found):
        file = np.load(io.BytesIO(prediction.files[".npz"]))
        near, whole = seen["local_encoder"][page], seen["global_encoder"][page, 1:]
        np.testing.assert_allclose(file["features"][0], near, atol=1e-5)
        np.testing.assert_allclose(file["global_features"][0], whole, atol=1e-5)
        np.testing.assert_allclose(file["mean"][0], near.mean(0), atol=1e-5)
        np.testing.assert_allclose(file["global_mean"][0], whole.mean(0), atol=1e-5)
        assert file["valid"].all()
