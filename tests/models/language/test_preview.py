import torch

from models.base import SamplePart, Sampling
from models.language.config import SIZES
from models.language.model import Transformer
from models.language.preview import continue_tokens, sample_text
from models.language.readers.records import Turn
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, windows

CPU = torch.device("cpu")


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
        model, shapes = Transformer(SIZES["tiny"]).train(training), []
        model.register_forward_pre_hook(lambda _, given, shapes=shapes: shapes.append(tuple(given[0].shape)))
        continue_tokens(model, [[257, 72]], Sampling(7, 0.8), 256, CPU)
        assert shapes == [(1, 9)] * 7 and model.training is training
