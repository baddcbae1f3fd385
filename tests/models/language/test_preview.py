import torch
from torch import nn

from models.base import SamplePart, Sampling
from models.language.config import SIZES
from models.language.model import Transformer
from models.language.preview import continue_tokens, sample_text
from models.language.readers.records import Turn
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, windows

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Records the shapes of forward passes."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shapes = inner, []

    def forward(self, tokens):
        self.shapes.append(tuple(tokens.shape))
        return self.inner(tokens)


def model():
    torch.manual_seed(0)
    return Transformer(SIZES["tiny"])


def test_a_sample_as_text_says_what_counts_in_the_loss():
    history = (Turn("system", "be brief"), Turn("user", "a"), Turn("assistant", "b"))
    row = dialogues([conversation("list all", "ls -a", history)], 64).sample(1)
    assert sample_text(row, TOKENIZER) == [
        SamplePart("<system>be brief</system>\nUser: a\nAssistant: b\nUser: list all\nAssistant: ", False),
        SamplePart("ls -a[end]", True),
    ]
    assert sample_text(windows(["one", "two"], 6).sample(0), TOKENIZER) == [SamplePart("one[end]tw", True)]


def test_each_call_takes_as_many_forward_passes_over_one_shape_and_keeps_the_mode():
    for training in (True, False):
        counting = Counting(model()).train(training)
        continue_tokens(counting, [[257, 72]], Sampling(7, 0.8), 256, CPU)
        assert counting.shapes == [(1, 9)] * 7 and counting.training is training
