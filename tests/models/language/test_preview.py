import pytest
import torch

from gearshift.models.base import SamplePart, Sampling
from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer
from gearshift.models.language.preview import continue_tokens, predict, readable, sample_text
from gearshift.models.language.readers.records import Turn
from tests.models.language.chats import KINDS, TEMPLATES, chat_tokenizer, plain
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, windows

CPU = torch.device("cpu")


def test_a_sample_as_text_says_what_counts_in_the_loss():
    history = (Turn("system", "be brief"), Turn("user", "a"), Turn("assistant", "b"))
    row = dialogues([conversation("list all", "ls -a", history)], 80).sample(0)
    assert sample_text(row, TOKENIZER) == [
        SamplePart("<system>be brief</system>\nUser: a\nAssistant: ", False),
        SamplePart("b[end]", True),
        SamplePart("\nUser: list all\nAssistant: ", False),
        SamplePart("ls -a[end]", True),
    ]
    assert sample_text(windows(["one", "two"], 6).sample(0), TOKENIZER) == [
        SamplePart("one[end]tw", True)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_sample_are_the_text_that_transformers_decodes(tmp_path, kind):
    tokenizer = chat_tokenizer(tmp_path, kind, plain(TEMPLATES["chatml"]))
    history = (Turn("user", " one"), Turn("assistant", "two  <b>"))
    row = dialogues([conversation("three", "Hello 12", history)], 100, tokenizer=tokenizer).sample(
        0
    )
    parts = sample_text(row, tokenizer)
    assert [part.in_loss for part in parts] == [False, True] * 2
    assert all(part.text.endswith("[end]") for part in parts if part.in_loss)
    text = "".join(part.text for part in parts).replace("[end]", "")
    assert text == tokenizer.inner.decode([*row.inputs, row.labels[-1]], skip_special_tokens=True)


def test_a_written_answer_ends_where_the_template_ends_it(tmp_path):
    tokenizer = chat_tokenizer(tmp_path, "byte-level", plain(TEMPLATES["chatml"]))
    for end in ("<|im_end|>", "</s>"):
        assert readable(tokenizer.encode(f"yes{end}no").tolist(), tokenizer) == "yes"


def test_a_prediction_is_beside_the_first_answer_of_a_row_alone():
    history = (Turn("user", "a"), Turn("assistant", "bcd"))
    split = dialogues([conversation("list all", "ls -a", history)], 100)
    [row] = predict(Alphabet(), split, TOKENIZER, CPU, 1, 0.0).rows
    assert row[1:] == ["User: a\nAssistant: ", "bcd", "bcd"]


class Alphabet(torch.nn.Module):
    """Predicts b after a blank, the end token after d, and else the next letter."""

    def forward(self, tokens):
        following = torch.where(
            tokens == ord("d"), 258, torch.where(tokens == ord(" "), ord("b"), tokens + 1)
        )
        return torch.nn.functional.one_hot(following.clamp(max=271), 272).float()


def test_each_call_takes_as_many_forward_passes_over_one_shape_and_keeps_the_mode():
    for training in (True, False):
        model, shapes = Transformer(SIZES["tiny"]).train(training), []
        model.register_forward_pre_hook(
            lambda _, given, shapes=shapes: shapes.append(tuple(given[0].shape))
        )
        continue_tokens(model, [[257, 72]], Sampling(7, 0.8), 256, CPU)
        assert shapes == [(1, 9)] * 7 and model.training is training
