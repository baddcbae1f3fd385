import numpy as np
import pytest

from models.language.rows import collate
from tests.models.language.made import TOKENIZER, windows

TEXTS = ["one and two", "", "three is a longer text of its own", "four", "fünf"]


def all_rows(samples):
    return [samples.row(i) for i in range(len(samples))]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("length", [1, 5, 8, 12, 64, 1000])
def test_each_document_is_predicted_once_from_its_start_to_its_end(length, whole):
    rows = all_rows(windows(TEXTS, length, whole=whole))
    inputs = np.concatenate([row.inputs for row in rows])
    labels = np.concatenate([row.labels for row in rows])
    expected_inputs = [t for text in TEXTS for t in (TOKENIZER.start, *text.encode())]
    expected_labels = [t for text in TEXTS for t in (*text.encode(), TOKENIZER.end)]
    assert inputs.tolist() == expected_inputs
    assert labels.tolist() == expected_labels
    assert all(len(row.inputs) <= length for row in rows)


@pytest.mark.parametrize("length", [3, 7, 20])
def test_a_row_numbers_its_documents_at_each_start(length):
    for row in all_rows(windows(TEXTS, length)):
        starts = row.inputs == TOKENIZER.start
        starts[0] = False  # the row may begin inside a document
        expected = starts.cumsum()
        if row.documents is None:
            assert not expected.any()
        else:
            assert row.documents.tolist() == expected.tolist()


def test_whole_rows_hold_one_document_each():
    for row in all_rows(windows(TEXTS, 7, whole=True)):
        assert row.documents is None
        assert not (row.inputs[1:] == TOKENIZER.start).any()


@pytest.mark.parametrize("length", [1, 5, 8, 1000])
def test_bytes_of_all_rows_add_up_to_the_bytes_of_the_text(length):
    rows = all_rows(windows(TEXTS, length))
    assert sum(row.text_bytes for row in rows) == sum(len(text.encode()) for text in TEXTS)


def test_noise_keeps_how_often_each_label_occurs_and_nothing_else():
    text = "the order of these letters is what there is to learn " * 20
    real, noise, again = (windows([text], 256, noise=seed) for seed in (None, (1, 0), (1, 0)))
    for a, b, c in zip(*map(all_rows, (real, noise, again)), strict=True):
        assert sorted(a.labels) == sorted(b.labels)
        assert a.labels.tolist() != b.labels.tolist()
        assert b.inputs[1:].tolist() == b.labels[:-1].tolist()
        assert b.labels.tolist() == c.labels.tolist()


@pytest.mark.parametrize("noise", [None, (3,)])
def test_labels_are_counted_as_the_rows_hold_them(noise):
    samples = windows(TEXTS, 7, noise=noise)
    labels = np.concatenate([row.labels for row in all_rows(samples)])
    assert samples.label_counts(272).tolist() == np.bincount(labels, minlength=272).tolist()


def test_rows_are_padded_to_one_length_with_ignored_labels():
    samples = windows(TEXTS, 24)
    batch = collate(all_rows(samples), TOKENIZER.pad, 24)
    assert batch["input_ids"].shape == batch["labels"].shape == (len(samples), 24)
    assert batch["units"] == samples.tokens == int(batch["attention_mask"].sum())
    assert (batch["labels"][~batch["attention_mask"]] == -100).all()
    assert batch["documents"] is not None
