import numpy as np
import pytest
import torch

from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer
from gearshift.models.language.readers.records import Turn, exchanges
from gearshift.models.language.rows import collate
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, labeled, windows

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
    real, noise, again = (
        windows([text], 256, control=control) for control in ("real", "noise", "noise")
    )
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


def labels_of(row):
    return row.labels[row.labels != -100].tolist()


def test_labels_are_the_answer_and_the_end_token_only():
    row = dialogues([conversation()], 64).sample(0)
    assert labels_of(row) == [*b"ls -a", TOKENIZER.end]
    first = (row.labels != -100).argmax()
    assert row.inputs[first] == ord(" ")  # the last prompt token predicts the first answer token
    assert row.bytes_per_token == len("ls -a") / 6


@pytest.mark.parametrize("length", [6, 12, 30])
def test_a_long_prompt_loses_its_oldest_tokens_and_the_answer_loses_none(length):
    samples = dialogues([conversation()], length)
    row = samples.sample(0)
    assert len(row.inputs) <= length
    assert labels_of(row) == [*b"ls -a", TOKENIZER.end]
    assert row.inputs[0] == TOKENIZER.start
    whole = dialogues([conversation()], 64).sample(0)
    assert (
        row.inputs[1:].tolist() == whole.inputs[len(whole.inputs) - len(row.inputs) + 1 :].tolist()
    )
    assert samples.truncated == int(len(whole.inputs) > length)


def test_rows_are_padded_to_the_longest_in_multiples_of_eight_without_an_effect_on_the_loss():
    model, samples = (
        Transformer(SIZES["tiny"]),
        dialogues([conversation(), conversation(request="l")], 64),
    )
    rows, losses = [samples.sample(i) for i in range(2)], []
    batch = collate(rows, TOKENIZER.pad, None)
    assert batch["input_ids"].shape == (2, 32)  # the longer one has 31
    assert batch["boundaries"].tolist() == [0, 32, 64] and batch["units"] == 12
    assert (
        batch["tokens"]
        == int(batch["attention_mask"].sum())
        == sum(len(row.inputs) for row in rows)
    )
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


def chat(sizes, name="c", learned=()):
    """The turns of a conversation whose answers have `sizes` letters."""
    turns = []
    for number, size in enumerate(sizes):
        turns.append(Turn("user", f"{name}{number}"))
        turns.append(Turn("assistant", chr(97 + number) * size, number not in learned))
    return turns


def learned_in(rows):
    """The answers that are labels, in order, without their end tokens."""
    return TOKENIZER.decode([label for row in rows for label in labels_of(row)])


def test_the_answers_of_a_conversation_are_labels_of_one_row():
    [row] = all_rows(dialogues([exchanges(chat([3, 1, 2]), "a")], 200))
    text = "User: c0\nAssistant: aaa|\nUser: c1\nAssistant: b|\nUser: c2\nAssistant: cc"
    whole = [257, *(258 if byte == ord("|") else byte for byte in text.encode())]
    assert row.inputs.tolist() == whole
    is_label = np.zeros(len(whole), bool)
    for answer in ("aaa|", "b|"):
        begin = text.index(": " + answer) + 2  # the label of an input is the token after it
        is_label[begin : begin + len(answer)] = True
    is_label[-3:] = True
    assert row.labels.tolist() == np.where(is_label, [*whole[1:], 258], -100).tolist()
    assert row.bytes_per_token == 6 / 9


def test_answers_of_weight_0_and_repeated_requests_are_read_and_not_learned():
    first, second = (
        chat([3, 1, 2], learned=[1]),
        [*chat([3]), Turn("user", "other"), Turn("assistant", "z")],
    )
    rows = all_rows(dialogues([exchanges(turns, "a") for turns in (first, second)], 200))
    assert [learned_in([row]) for row in rows] == ["aaacc", "z"]
    assert TOKENIZER.decode(rows[1].inputs) == "User: c0\nAssistant: aaa\nUser: other\nAssistant: z"


@pytest.mark.parametrize("length", [30, 47, 64, 100, 160])
def test_a_long_conversation_becomes_rows_that_learn_each_answer_once_with_the_newest_history(
    length,
):
    turns = chat([3, 9, 1, 12, 2, 5, 8])
    [whole] = all_rows(dialogues([exchanges(turns, "a")], 1000))
    samples = dialogues([exchanges(turns, "a"), exchanges(chat([4], "d"), "a")], length)
    rows = all_rows(samples)
    assert len(rows) > 2
    assert learned_in(rows[:-1]) == learned_in([whole]) and learned_in(rows[-1:]) == "aaaa"
    assert samples.tokens == sum(len(labels_of(row)) for row in rows)
    position = 0
    for row in rows[:-1]:
        assert len(row.inputs) <= length and row.inputs[0] == TOKENIZER.start
        seen = [*row.inputs[1:], row.labels[-1]]
        every = [*whole.inputs[1:], whole.labels[-1]]
        ends = [n for n in range(len(every)) if every[n - len(seen) + 1 : n + 1] == seen]
        assert (
            len(ends) == 1 and ends[0] > position
        )  # a part of the whole, further on than the row before
        position = ends[0]
        # A row has all history that fits.
        assert len(row.inputs) == min(length, position + 1)
    assert position == len(whole.inputs) - 1
    assert samples.truncated == len(rows) - 2


def test_later_rows_of_a_long_conversation_have_half_a_row_of_history():
    turns = chat([5] * 40)
    rows = all_rows(dialogues([exchanges(turns, "a")], 200))
    total = len(all_rows(dialogues([exchanges(turns, "a")], 10**4))[0].inputs)
    assert sum(len(row.inputs) for row in rows) < 2.5 * total
    for row in rows[1:]:
        assert (row.labels != -100).argmax() >= 100 - 1


def test_the_noise_control_permutes_each_answer_of_a_conversation():
    chats = [labeled(exchanges(chat([2, 3], name), "a"), name) for name in "xyz"]
    rows = all_rows(dialogues(chats, 200, control="noise"))
    assert len(rows) == 6
    assert sorted(learned_in([row]) for row in rows) == ["aa", "aa", "aa", "bbb", "bbb", "bbb"]
    histories = [TOKENIZER.decode(row.inputs[: (row.labels != -100).argmax() + 1]) for row in rows]
    assert histories[1] == "User: x0\nAssistant: aa\nUser: x1\nAssistant: "
