import math

import pytest
import torch

from gearshift.models.base import Sampling
from gearshift.models.common.split import SplitRule, split_groups
from gearshift.models.language.preview import continue_tokens
from gearshift.models.language.task import counts, read

PROSE = "\n\n".join(
    f"Paragraph {i} tells of grün and {'blue ' * (i % 7)}things." for i in range(300)
)


@pytest.fixture
def prose(tmp_path, make_task):
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    torch.manual_seed(0)
    return lambda **settings: make_task(path=path, seq_len=64, **settings)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_bits_per_byte_is_the_loss_in_bits_over_the_bytes_of_the_text(prose, counts_of, tokenizer):
    task = prose(tokenizer=tokenizer)
    task.setup()
    model = task.build()
    metric, counts = counts_of(task, model, "val", 4)
    # A second way: each document alone, log-softmax in float64, its bytes counted as bytes.
    nats = size = 0
    corpus = read(task.paths[0], None, "stop")
    groups = split_groups(corpus.groups, SplitRule(0.1), "groups")["val"]
    for document in (d for d in corpus.records() if d.group in groups):
        tokens = [task.tokenizer.start, *task.tokenizer.encode(document.text)]
        targets = torch.tensor([*tokens[1:], task.tokenizer.end], dtype=torch.int64)
        logits = model(torch.tensor([tokens], dtype=torch.int64))[0].double()
        nats -= logits.log_softmax(-1).gather(-1, targets[:, None]).sum().item()
        size += len(document.text.encode())
    result = metric.result(counts)
    # Rows cut documents: a token at the start of a row has lost its context.
    assert result["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=0.02)
    tokens = task.facts()["tokens"]["val"]
    assert result["bits_per_byte"] == pytest.approx(
        result["val_loss"] * tokens / size / math.log(2), rel=1e-12
    )
    assert result["perplexity"] == pytest.approx(math.exp(result["val_loss"]))


def test_exact_match_equals_that_of_greedy_decoding(tmp_path, ready_task, train, counts_of):
    path = tmp_path / "pairs.csv"
    # The answer is not predictable, so about half of the answers are correct.
    rows = [f"question {i},{'no' if i % 7 in (1, 4, 5) else 'yes'}" for i in range(60)]
    path.write_text("input,output\n" + "\n".join(rows), encoding="utf-8")
    task = ready_task(path=path, share=0.3)
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=40)
    metric, counts = counts_of(task, model, "val", 5)
    exact = 0
    samples, tokenizer = task.data("val"), task.tokenizer
    for i in range(len(samples)):
        row = samples.sample(i)
        first = int((row.labels != -100).argmax())
        prompt, answer = row.inputs[: first + 1], row.labels[first:]
        greedy, cpu = Sampling(len(answer), temperature=0.0), torch.device("cpu")
        (written,) = continue_tokens(model, [prompt.tolist()], greedy, 0, cpu)
        exact += written == answer.tolist() and written[-1] == tokenizer.end
    assert metric.result(counts)["exact_match"] == exact / len(samples)
    assert 0 < exact < len(samples)  # otherwise the comparison is trivial


def test_each_answer_of_a_row_is_exact_or_not():
    labels = torch.tensor([[-100, 1, 2, -100, 3, -100, 4], [5, -100, 6, 7, -100, -100, -100]])
    correct = torch.ones_like(labels, dtype=torch.bool)
    correct[0, [0, 2]] = False  # where there is no label it does not matter
    correct[1, 3] = False
    batch = {"labels": labels, "source": torch.zeros(2, dtype=torch.int64), "bytes_per_token": 1.0}
    found = counts(torch.ones(2, 7), correct, batch)
    assert (found["exact"].item(), found["answers"].item(), found["correct"].item()) == (3, 5, 5)
