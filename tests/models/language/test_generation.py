import torch
from torch import nn

from models.language.config import SIZES
from models.language.model import Transformer
from models.language.preview import continue_tokens

CPU = torch.device("cpu")


class Counting(nn.Module):
    """Counts forward passes and remembers the shapes they had."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shapes = inner, []

    def forward(self, tokens):
        self.shapes.append(tuple(tokens.shape))
        return self.inner(tokens)


def model():
    torch.manual_seed(0)
    return Transformer(SIZES["tiny"])


def test_greedy_decoding_takes_the_likeliest_token_each_time():
    ours, prompt = model(), [257, 72, 105]
    (written,) = continue_tokens(ours, [prompt], 5, pad=256, device=CPU, seed=None)
    for token in written:
        assert token == ours(torch.tensor([prompt]))[0, -1].argmax().item()
        prompt.append(token)


def test_prompts_of_unequal_length_go_on_as_each_alone():
    prompts = [[257, 72, 105], [257], [257, 9, 8, 7, 6]]
    alone = [continue_tokens(model(), [p], 6, pad=256, device=CPU, seed=None)[0] for p in prompts]
    assert continue_tokens(model(), prompts, 6, pad=256, device=CPU, seed=None) == alone


def test_drawing_depends_on_the_seed_only():
    def drawn(seed):
        return continue_tokens(model(), [[257]], 12, pad=256, device=CPU, seed=seed)

    torch.manual_seed(1)
    first = drawn(5)
    torch.manual_seed(2)
    assert drawn(5) == first != drawn(6)


def test_each_call_takes_as_many_forward_passes_over_one_shape():
    counting = Counting(model())
    continue_tokens(counting, [[257, 72]], 7, pad=256, device=CPU, seed=0)
    assert counting.shapes == [(1, 9)] * 7


def test_the_model_is_left_in_the_mode_it_was_in():
    for training in (True, False):
        ours = model().train(training)
        continue_tokens(ours, [[257]], 1, pad=256, device=CPU, seed=0)
        assert ours.training is training
