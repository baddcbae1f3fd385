import pytest
import torch

from models.base import DataError
from models.language.config import SIZES
from models.language.model import Transformer
from models.language.readers.records import Turn
from models.language.rows import collate
from models.language.tokens.tokenizer import prompt_and_answer
from tests.models.language.made import TOKENIZER, conversation, dialogues


def labelled(row):
    return row.labels[row.labels != -100].tolist()


def test_the_text_form_is_that_of_the_specification():
    prompt, answer = prompt_and_answer((Turn("user", "list all"),), "ls -a", TOKENIZER)
    assert prompt[0] == TOKENIZER.start
    assert TOKENIZER.decode([*prompt, *answer]) == "User: list all\nAssistant: ls -a"
    assert answer.tolist() == [*b"ls -a", TOKENIZER.end]


def test_history_stands_before_the_request():
    history = (Turn("system", "be brief"), Turn("user", "hi"), Turn("assistant", "hello"))
    prompt, _ = prompt_and_answer((*history, Turn("user", "list all")), "ls -a", TOKENIZER)
    assert TOKENIZER.decode(prompt) == (
        "<system>be brief</system>\nUser: hi\nAssistant: hello\nUser: list all\nAssistant: "
    )


def test_labels_are_the_answer_and_the_end_and_nothing_of_the_prompt():
    row = dialogues([conversation()], 64).sample(0, None)
    assert labelled(row) == [*b"ls -a", TOKENIZER.end]
    first = (row.labels != -100).argmax()
    assert row.inputs[first] == ord(" ")  # the last of the prompt predicts the first of the answer
    assert row.text_bytes == len("ls -a")


@pytest.mark.parametrize("length", [6, 7, 12, 29, 30])
def test_a_long_prompt_loses_its_oldest_tokens_and_the_answer_none(length):
    samples = dialogues([conversation()], length)
    row = samples.sample(0, None)
    assert len(row.inputs) <= length
    assert labelled(row) == [*b"ls -a", TOKENIZER.end]
    assert row.inputs[0] == TOKENIZER.start
    whole = dialogues([conversation()], 64).sample(0, None)
    assert (
        row.inputs[1:].tolist() == whole.inputs[len(whole.inputs) - len(row.inputs) + 1 :].tolist()
    )
    assert samples.truncated == int(len(whole.inputs) > length)


def test_an_answer_that_does_not_fit_is_told_with_its_place():
    pairs = [conversation("long", "a much longer answer"), conversation()]
    with pytest.raises(DataError) as error:
        dialogues(pairs, 16)
    assert str(error.value) == (
        "1 of 2 rows cannot be used\n"
        "  where         x.csv:2: the answer has 21 tokens; data.seq_len 16 fits 16\n"
        "  fix           repair them, or skip them with  --set data.on_bad=skip"
    )
    left = dialogues(pairs, 16, "skip")
    assert (len(left), left.skipped) == (1, 1)


def test_rows_are_padded_to_the_longest_in_multiples_of_eight():
    samples = dialogues([conversation(), conversation(request="l")], 64)
    rows = [samples.sample(i, None) for i in range(2)]
    batch = collate(rows, TOKENIZER.pad, None)
    assert batch["input_ids"].shape == (2, 32)  # the longer one has 31
    assert batch["documents"] is None
    assert batch["units"] == 12


def test_padding_does_not_change_the_loss():
    model = Transformer(SIZES["tiny"])
    samples = dialogues([conversation(), conversation(request="l")], 64)
    rows = [samples.sample(i, None) for i in range(2)]
    losses = []
    for length in (None, 64, 120):
        batch = collate(rows, TOKENIZER.pad, length)
        losses.append(model(batch["input_ids"], labels=batch["labels"]).item())
    for pad in (0, 65):
        batch = collate(rows, pad, None)
        losses.append(model(batch["input_ids"], labels=batch["labels"]).item())
    torch.testing.assert_close(torch.tensor(losses), torch.full((5,), losses[0]))
