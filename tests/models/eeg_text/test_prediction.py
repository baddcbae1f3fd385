import io
import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from gearshift.models.common.predictions import FixedDraws
from gearshift.models.eeg_text.montage import SLOTS
from gearshift.models.eeg_text.recordings import RATE_HZ
from gearshift.models.eeg_text.showing import sentences
from tests.models import tasks
from tests.models.eeg_text.pretrained_folders import save_bart
from tests.models.eeg_text.readers.writers import (
    NAMES,
    waves,
    write_edf,
    write_matlab5,
    write_matlab73,
)

READ_EEG = ("bridge", "encoder_attn.v_proj", "encoder_attn.out_proj")
"""Layers of the text decoder; larger weights make its texts depend on the EEG."""


@pytest.fixture
def without_data(make_task, tmp_path):
    """A task built from a run folder whose data no longer exists, and a model that writes other
    texts for other EEG."""

    def vary(model):
        for name, parameter in model.named_parameters():
            if any(part in name for part in READ_EEG):
                parameter.mul_(10)

    def make(data="embedded:reading-small", **settings):
        return tasks.without_data(make_task, tmp_path / "run", data, vary, **settings)

    return make


@pytest.fixture
def zuco(text_task, tmp_path):
    """Embedded sentences in a ZuCo file without their texts, and their numbers in `train`."""
    samples = text_task.data("train")
    path = tmp_path / "resultsA_NR.mat"
    numbers = range(10)  # more than fit into one forward pass
    with h5py.File(path, "w") as file:
        cells = file.create_dataset("sentenceData/rawData", (len(numbers), 1), h5py.ref_dtype)
        for number in numbers:
            item = samples.numbers[number]
            eeg = text_task.recordings.items[item].load()
            cells[number, 0] = file.create_dataset(f"#refs#/r{number}", data=eeg).ref
    return path, numbers


@pytest.fixture
def edf(tmp_path):
    """Embedded sentences one after the other in a continuous recording of all channels."""

    def write(items, seconds):
        eeg = np.concatenate([item.load() for item in items[: 2 * seconds]])
        return write_edf(
            tmp_path / "a.edf",
            SLOTS,
            seconds,
            RATE_HZ,
            lambda second: eeg[second * RATE_HZ : (second + 1) * RATE_HZ].T,
        )

    return write


def rows(prediction):
    return json.loads(prediction.files[".json"])["segments"]


def test_sentences_are_those_of_a_batch_with_the_data(without_data, text_task, zuco):
    task, model = without_data()
    path, numbers = zuco
    found = list(task.predict(model, path))
    split = text_task.data("train")
    batch = text_task.collate([split.sample(n, FixedDraws()) for n in numbers])
    texts = text_task.texts
    expected = sentences(model, batch, texts.tokenizer, texts.steps)
    assert [row["text"] for row in rows(found[0])] == expected and len(set(expected)) == 10
    item = text_task.recordings.items[split.numbers[0]]
    assert rows(found[0])[0] == {
        "segment": "resultsA_NR.mat, sentence 1",
        "start_s": None,
        "duration_s": item.samples / 500,
        "text": expected[0],
    }
    assert [p.name for p in found] == ["resultsA_NR"]
    assert found[0].text.split("\n")[:2] == [
        "resultsA_NR",
        f"  resultsA_NR.mat, sentence 1: {expected[0]}",
    ]
    assert list(task.predict(model, path)) == found


def test_recordings_are_read_in_windows_or_segments_of_a_table(
    without_data, text_task, edf, tmp_path
):
    task, model = without_data()
    path = edf(text_task.recordings.items, 5)
    (found,) = task.predict(model, path)
    own = rows(found)
    length = 480 / 500
    assert [row["start_s"] for row in own] == pytest.approx([length * n for n in range(6)])
    durations = [row["duration_s"] for row in own]
    assert durations == pytest.approx([length] * 5 + [5 - 5 * length])
    assert json.loads(found.files[".json"])["recording"] == found.name == "a"
    assert len({row["text"] for row in own}) > 1
    folder = tmp_path / "new"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.edf", "deep/a.edf"):
        shutil.copy(path, folder / name)
    (folder / "notes.txt").write_text("none")
    first, second, others = task.predict(model, folder)
    assert others.text.endswith(": notes.txt") and not others.files
    assert [first.name, second.name] == ["a", "deep-a"]
    assert [row["text"] for row in rows(first)] == [row["text"] for row in rows(second)]
    path.with_suffix(".tsv").write_text("duration_s\tonset_s\n2.5\t1\n0.9\t4\n")
    (found,) = task.predict(model, path)
    assert [(row["start_s"], row["duration_s"]) for row in rows(found)] == [(1, 2.5), (4, 0.9)]
    assert rows(found)[0]["segment"] == "a.tsv:2"


@pytest.mark.parametrize("write", [write_matlab5, write_matlab73])
def test_texts_of_a_zuco_file_are_not_needed(without_data, tmp_path, write):
    task, model = without_data()
    path = tmp_path / "results.mat"
    if write is write_matlab73:
        write(path, leave_out=("content",))
    else:
        write(path)
        from scipy.io import loadmat, savemat

        stored = loadmat(path)["sentenceData"]
        stored["content"][...] = [["..."]]
        savemat(path, {"sentenceData": stored})
    (found,) = task.predict(model, path)
    assert [row["segment"] for row in rows(found)] == [
        f"results.mat, sentence {n}" for n in (1, 2, 4)
    ]


def test_tokenizer_and_sizes_of_a_bart_are_kept(make_task, ready_task, zuco, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "model"
    run.mkdir()
    save_bart(folder)
    first = ready_task(run, pretrained=str(folder))
    original = first.build().eval()
    shutil.rmtree(folder)
    task = make_task(run, pretrained=str(folder))
    task.setup_without_data()
    model = task.build().eval()
    model.load_state_dict(original.state_dict())
    assert len(rows(next(task.predict(model, zuco[0])))) == 10
    memory, valid = torch.randn(1, 8, 16), torch.ones(1, 32, dtype=torch.bool)
    ids = torch.tensor([[task.tokenizer.start, 200]])
    assert torch.equal(
        model(None, valid, ids, memory=memory), original(None, valid, ids, memory=memory)
    )
    assert task.size == first.size
    old, new = first.tokenizer, task.tokenizer
    assert (new.start, new.pad, new.end) == (old.start, old.pad, old.end)
    tokens = old.encode("the old man finds a drum")
    assert new.decode(tokens) == old.decode(tokens) == "the old man finds a drum"


def test_a_channel_map_is_kept(without_data, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    numbered = [f"ch{n}" for n in range(len(NAMES))]
    mapped = dict(zip(numbered, NAMES, strict=True))
    channels = tmp_path / "map.json"
    channels.write_text(json.dumps(mapped))
    for number, name in enumerate("abcdefgh"):
        write_edf(
            data / f"{name}.edf", numbered, 20, make=lambda second, add=number: waves(second) + add
        )
        lines = [f"{n * 2}\t1.5\tword {name} {n}" for n in range(3)]
        (data / f"{name}.tsv").write_text("\n".join(["onset_s\tduration_s\ttext", *lines]))
    new = tmp_path / "new.edf"
    shutil.copy(data / "a.edf", new)
    trained_first = {"channels": str(channels), "share": 0.2}
    task, model = without_data(data, **trained_first)
    channels.unlink()
    assert len(rows(next(task.predict(model, new)))) == 21


def test_a_stage_without_a_decoder_writes_features(without_data, text_task, zuco):
    task, model = without_data(stage="encoder")
    path, numbers = zuco
    (found,) = task.predict(model, path)
    split = text_task.data("train")
    batch = text_task.collate([split.sample(n, FixedDraws()) for n in numbers])
    with torch.no_grad():
        states = model.encoder(batch["eeg"], batch["eeg_mask"]).numpy()
    valid = batch["eeg_mask"][:, ::4].numpy()
    file = np.load(io.BytesIO(found.files[".npz"]))
    assert file["item"][0] == "resultsA_NR.mat, sentence 1"
    assert np.isnan(file["start_s"]).all() and (file["duration_s"] > 0).all()
    assert (file["valid"] == valid).all()
    np.testing.assert_allclose(file["features"], states, atol=1e-5)
    means = [row[own].mean(0) for row, own in zip(states, valid, strict=True)]
    np.testing.assert_allclose(file["mean"], means, atol=1e-5)
    assert found.text.startswith("resultsA_NR: features, 10 × ")
