import json

import pytest
import torch

from gearshift.models.doc_translation.config import SIZES
from gearshift.models.doc_translation.readers.page import without_number
from tests.models.errors import error_of


def pages_of(task, side):
    return [task.records[number] for number in task.data(side).numbers]


def sides_of(task):
    return {
        side: {page.document for page in pages_of(task, side)} for side in ("train", "val", "test")
    }


@pytest.mark.parametrize("kind", ["cards", "dota", "article"])
def test_no_document_is_in_two_splits(ready_task, dota, kind):
    settings = {"cards": {}, "dota": {"path": dota}, "article": {"path": dota, "split": "article"}}[
        kind
    ]
    task = ready_task(**settings)
    sides = sides_of(task)
    assert all(sides.values())
    assert sum(map(len, sides.values())) == len(set.union(*sides.values()))
    train, val = ({page.target() for page in pages_of(task, side)} for side in ("train", "val"))
    assert not train & val


def test_the_split_of_the_folder_is_used_and_a_fraction_of_each_side(ready_task, dota):
    task = ready_task(path=dota)
    assert task.facts()["groups"] == {"train": 8, "val": 1, "test": 1}
    assert task.facts()["samples"] == {"train": 16, "val": 2, "test": 2}
    assert sides_of(task)["val"] == {"2101.00008"}
    task = ready_task(path=dota, fraction=0.5)
    assert task.facts()["groups"] == {"train": 4, "val": 1, "test": 1}


def test_a_split_file_has_no_folds(ready_task, dota):
    error = error_of(ready_task, path=dota, fold="1/2")
    assert error.message == "data.fold 1/2 cannot be cut: a file gives the split of this data"
    assert error.fix == "--set data.split=article"
    assert sides_of(ready_task(path=dota, fold="1/2", split="article", share=0.2))["val"]


def test_skipped_pages_are_listed_in_the_run_folder(ready_task, dota, tmp_path):
    (dota / "zh_mmd" / "2101.00000_1.mmd").unlink()
    folder = tmp_path / "run"
    folder.mkdir()
    task = ready_task(folder, path=dota)
    assert json.loads((folder / "left_out.json").read_text()) == [
        {"page": "2101.00000_1", "why": "zh_mmd/2101.00000_1.mmd is missing or empty"}
    ]
    assert task.facts()["left_out_pages"] == 1


def test_the_vocabulary_is_trained_on_training_pages_only(ready_task, dota):
    marks = {f"2101.0000{number}": f"mark{letter}" for number, letter in enumerate("abcdefghij")}
    for file in (dota / "zh_mmd").iterdir():
        file.write_text(f"{marks[without_number(file.stem)]} " * 9)
    task = ready_task(path=dota)
    known = " ".join(task.vocabulary.inner.get_vocab())
    for side, documents in sides_of(task).items():
        for document in documents:
            assert (marks[document] in known) == (side == "train")


def test_a_sample_is_its_page_and_the_tokens_that_follow_each_other(cards):
    task = cards
    sample = task.data("train").sample(3, None)
    assert [view.shape for view in sample["views"]] == [(1, 64, 64), (1, 96, 64)]
    inputs, labels = sample["inputs"], sample["labels"]
    assert inputs[0] == task.vocabulary.start and labels[-1] == task.vocabulary.end
    assert inputs[1:].tolist() == labels[:-1].tolist()
    assert task.vocabulary.decode(labels) == sample["reference"]


def test_a_long_translation_is_truncated_without_an_end_token(ready_task):
    task = ready_task(seq_len=8)
    sample = task.data("train").sample(0, None)
    assert len(sample["inputs"]) == len(sample["labels"]) == 8
    assert task.vocabulary.end not in sample["labels"]
    assert task.facts()["cut_share"] > 0.5


def test_a_batch_is_padded_to_the_longest_and_units_are_its_labels(ready_task, dota):
    for number, file in enumerate(sorted((dota / "zh_mmd").iterdir())):
        file.write_text("字" * (1 + 3 * (number % 5)), encoding="utf-8")
    task = ready_task(path=dota)
    samples = [task.data("train").sample(i, None) for i in range(5)]
    batch = task.collate(samples)
    longest = max(len(sample["labels"]) for sample in samples)
    assert batch["decoder_ids"].shape[1] % 8 == 0 and batch["decoder_ids"].shape[1] >= longest
    lengths = (batch["labels"] != -100).sum(1).tolist()
    assert lengths == [len(sample["labels"]) for sample in samples]
    assert task.num_units(batch) == sum(lengths)
    assert batch["page_local"].dtype == batch["page_global"].dtype == torch.float32
    assert batch["decoder_ids"].dtype == batch["labels"].dtype == torch.int64


def test_the_noise_control_shows_another_documents_page_beside_the_true_text(cards, make_task):
    real, noise = cards, make_task(control="noise")
    noise.setup()
    for side in ("train", "val"):
        split = noise.data(side)
        for i in range(5):
            first, other = (task.data(side).sample(i, None) for task in (real, noise))
            assert first["reference"] == other["reference"]
            assert not (first["views"][1] == other["views"][1]).all()
            assert (
                noise.records[split.given[i]].document != noise.records[split.numbers[i]].document
            )
    assert noise.facts()["control"] == {"val_bleu_gain": {"max": 1.0}}
    assert "control" not in real.facts()


def test_pretrained_encoders_start_a_stage_and_give_way_to_model_encoder(ready_task, tmp_path):
    from safetensors.torch import save_model

    from gearshift.models.doc_translation.model import global_encoder

    torch.manual_seed(8)
    given = global_encoder(SIZES["tiny"].whole)
    given.save_pretrained(tmp_path / "pretrained" / "global")
    first = ready_task(stage="encoder", pretrained=str(tmp_path / "pretrained"))
    trained = first.build()
    assert all(
        torch.equal(tensor, trained.global_encoder.state_dict()[name])
        for name, tensor in given.state_dict().items()
    )
    assert first.facts()["pretrained"]["global"]["missing"] == 0
    with torch.no_grad():
        trained.global_encoder.layernorm.weight.fill_(7.0)
    save_model(trained, str(tmp_path / "model.safetensors"))
    task = ready_task(encoder=str(tmp_path), pretrained=str(tmp_path / "pretrained"))
    assert task.build().global_encoder.layernorm.weight.eq(7.0).all()
    assert "pretrained" not in task.facts()
