import numpy as np
import pytest
import torch

from models.language.config import SIZES
from models.language.model import Transformer
from models.language.rows import collate
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, windows

TEXTS = ["one and two", "", "three is a longer text of its own", "four", "fünf"]


def all_rows(samples):
    return [samples.sample(i) for i in range(len(samples))]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("length", [1, 5, 8, 1000])
def test_each_document_is_predicted_once_from_its_start_to_its_end(length, whole):
    rows = all_rows(windows(TEXTS, length, single_document=whole))
    inputs = np.concatenate([row.inputs for row in rows])
    labels = np.concatenate([row.labels for row in rows])
    assert inputs.tolist() == [t for text in TEXTS for t in (TOKENIZER.start, *text.encode())]
    assert labels.tolist() == [t for text in TEXTS for t in (*text.encode(), TOKENIZER.end)]
    assert all(len(row.inputs) <= length for row in rows)
    size = sum(len(text.encode()) for text in TEXTS)
    assert sum(len(row.labels) * row.bytes_per_token for row in rows) == pytest.approx(size)
    if whole:
        assert not any(row.starts for row in rows)
        assert not any((row.inputs[1:] == TOKENIZER.start).any() for row in rows)


@pytest.mark.parametrize("length", [3, 7, 20])
def test_a_row_numbers_its_documents_at_each_start(length):
    for row in all_rows(windows(TEXTS, length)):
        expected = np.flatnonzero(row.inputs == TOKENIZER.start)
        expected = expected[expected > 0]  # the row may begin inside a document
        assert expected.tolist() == list(row.starts)


def test_noise_keeps_how_often_each_label_occurs_and_nothing_else():
    text = "the order of these letters is what there is to learn " * 20
    real, noise, again = (windows([text], 256, control=control) for control in ("real", "noise", "noise"))
    for a, b, c in zip(*map(all_rows, (real, noise, again)), strict=True):
        assert sorted(a.labels) == sorted(b.labels)
        assert a.labels.tolist() != b.labels.tolist()
        assert b.inputs[1:].tolist() == b.labels[:-1].tolist()
        assert b.labels.tolist() == c.labels.tolist()


def test_boundaries_are_the_starts_of_rows_and_of_their_documents():
    rows = all_rows(windows(TEXTS, 24))
    boundaries = collate(rows, TOKENIZER.pad, 24)["boundaries"]
    starts = [
        24 * i + at
        for i, row in enumerate(rows)
        for at in range(len(row.inputs))
        if at == 0 or row.inputs[at] == TOKENIZER.start
    ]
    assert len(starts) > len(rows)  # some row holds two documents
    assert boundaries.tolist() == [*starts, 24 * len(rows)]
    assert boundaries.dtype == torch.int32


def labeled(row):
    return row.labels[row.labels != -100].tolist()


def test_labels_are_the_answer_and_the_end_token_only():
    row = dialogues([conversation()], 64).sample(0)
    assert labeled(row) == [*b"ls -a", TOKENIZER.end]
    first = (row.labels != -100).argmax()
    assert row.inputs[first] == ord(" ")  # the last prompt token predicts the first answer token
    assert row.bytes_per_token == len("ls -a") / 6


@pytest.mark.parametrize("length", [6, 12, 30])
def test_a_long_prompt_loses_its_oldest_tokens_and_the_answer_loses_none(length):
    samples = dialogues([conversation()], length)
    row = samples.sample(0)
    assert len(row.inputs) <= length
    assert labeled(row) == [*b"ls -a", TOKENIZER.end]
    assert row.inputs[0] == TOKENIZER.start
    whole = dialogues([conversation()], 64).sample(0)
    assert row.inputs[1:].tolist() == whole.inputs[len(whole.inputs) - len(row.inputs) + 1 :].tolist()
    assert samples.truncated == int(len(whole.inputs) > length)


def test_rows_are_padded_to_the_longest_in_multiples_of_eight_without_an_effect_on_the_loss():
    model, samples = Transformer(SIZES["tiny"]), dialogues([conversation(), conversation(request="l")], 64)
    rows, losses = [samples.sample(i) for i in range(2)], []
    batch = collate(rows, TOKENIZER.pad, None)
    assert batch["input_ids"].shape == (2, 32)  # the longer one has 31
    assert batch["boundaries"].tolist() == [0, 32, 64] and batch["units"] == 12
    for pad, length in (
        (TOKENIZER.pad, None),
        (TOKENIZER.pad, 64),
        (TOKENIZER.pad, 120),
        (0, None),
        (65, None),
    ):
        batch = collate(rows, pad, length)
        losses.append(model(batch["input_ids"], labels=batch["labels"]).item())
    torch.testing.assert_close(torch.tensor(losses), torch.full((5,), losses[0]))
