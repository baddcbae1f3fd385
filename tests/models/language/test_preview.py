import torch
from torch import nn

from models.base import SamplePart
from models.language.config import SIZES
from models.language.model import Transformer
from models.language.preview import continue_tokens, predict, sample_text
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
    row = dialogues([conversation("list all", "ls -a", history)], 64).row(1)
    assert sample_text(row, TOKENIZER) == [
        SamplePart("<system>be brief</system>\nUser: a\nAssistant: b\nUser: list all\nAssistant: ", False),
        SamplePart("ls -a[end]", True),
    ]
    assert sample_text(windows(["one", "two"], 6).row(0), TOKENIZER) == [SamplePart("one[end]tw", True)]


def test_greedy_decoding_takes_the_likeliest_token_each_time_for_prompts_of_any_length():
    ours, prompts = model(), [[257, 72, 105], [257], [257, 9, 8, 7, 6]]
    together = continue_tokens(ours, prompts, 6, pad=256, device=CPU, seed=None)
    for prompt, written in zip(prompts, together, strict=True):
        for token in written:
            assert token == ours(torch.tensor([prompt]))[0, -1].argmax().item()
            prompt.append(token)


def test_each_call_takes_as_many_forward_passes_over_one_shape_and_keeps_the_mode():
    for training in (True, False):
        counting = Counting(model()).train(training)
        continue_tokens(counting, [[257, 72]], 7, pad=256, device=CPU, seed=0)
        assert counting.shapes == [(1, 9)] * 7 and counting.training is training


def test_an_answer_is_independent_of_the_other_rows(ready_task, tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"question {i},{'answer ' * (i % 4)}{i}" for i in range(60)]
    path.write_text("input,output\n" + "\n".join(rows))
    task = ready_task(path=path)
    torch.manual_seed(0)
    model, rows = task.build().eval(), task.data("val")
    found = predict(model, task.dataset, CPU)
    tokenizer = task.dataset.tokenizer
    for index, row in ((0, found.rows[0]), (len(rows) - 1, found.rows[-1])):
        answer = rows.answer(index).tolist()
        (generated,) = continue_tokens(
            model, [rows.prompt(index).tolist()], len(answer), pad=tokenizer.pad, device=CPU, seed=None
        )
        assert row[2] == tokenizer.decode(answer[:-1])
        assert row[4] == sum(a == b for a, b in zip(generated, answer, strict=True)) / len(answer)
