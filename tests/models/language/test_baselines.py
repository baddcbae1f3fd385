import math

import numpy as np
import pytest
import torch

from gearshift.models.language.baselines import Frequencies, shares
from gearshift.models.language.rows import Row

A, B, C, D = range(97, 101)
SIZE = 272  # of the byte tokenizer


def batch(task, *rows):
    """Rows of pairs of an input and its label."""
    arrays = [np.array(row).T for row in rows]
    return task.collate([Row(inputs, labels, "row", (), 2.0) for inputs, labels in arrays])


@pytest.fixture
def task(tmp_path, ready_task):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"paragraph {i}" for i in range(40)), encoding="utf-8")
    return ready_task(path=path, seq_len=8)


def test_unigram_and_bigram_equal_those_by_hand(task):
    # b follows a two times and c once, a follows b once; of the ignored label nothing counts.
    train = [batch(task, [(A, B), (A, B)]), batch(task, [(A, C), (B, A), (C, -100)])]
    held_out = [batch(task, [(A, B), (A, D)]), batch(task, [(D, B), (B, -100)])]
    unigram, bigram = task.baselines(iter(train), iter(held_out))

    # Four labels of three kinds; then b after a, an unseen pair, and an unseen context.
    b = (2 + 3 / SIZE) / 7
    d = (3 / SIZE) / 7
    expected = -(2 * math.log(b) + math.log(d)) / 3
    assert unigram.metrics == {
        "val_loss": pytest.approx(expected),
        "perplexity": pytest.approx(math.exp(expected)),
        "bits_per_byte": pytest.approx(expected / 2 / math.log(2)),
        "token_accuracy": pytest.approx(2 / 3),
    }
    b_after_a = (2 + 2 * b) / 5
    d_after_a = 2 * d / 5
    expected = -(math.log(b_after_a) + math.log(d_after_a) + math.log(b)) / 3
    assert bigram.metrics["val_loss"] == pytest.approx(expected)
    assert bigram.metrics["token_accuracy"] == pytest.approx(2 / 3)


def test_probabilities_add_up_to_one_and_the_highest_is_the_likeliest():
    rng = np.random.default_rng(0)
    # After 10 come eight tokens, each less likely there than 11, which never comes there.
    inputs = np.r_[rng.integers(0, 9, 60), [10] * 8, [9] * 100]
    labels = np.r_[rng.integers(0, 9, 60) ** 2 // 9, range(8), [11] * 100]
    unigram = shares(labels, 12)
    for model in Frequencies(unigram), Frequencies(unigram, inputs, labels):
        contexts, followers = (x.ravel() for x in np.mgrid[:12, :12])
        rows = model.probabilities(contexts, followers).reshape(12, 12)
        assert rows.min() > 0
        np.testing.assert_allclose(rows.sum(1), 1)
        likeliest = model.likeliest
        np.testing.assert_array_equal(rows[np.arange(12), likeliest], rows.max(1))
        assert likeliest[10] == 11


def test_a_large_vocabulary_takes_memory_for_the_pairs_in_the_text_only(task):
    size = 150_000
    ids = torch.arange(size).flip(0)[None, :1000]
    bigram = Frequencies(shares(ids[0].numpy(), size), ids[0].numpy(), ids[0].numpy())
    nats, is_correct = bigram(ids, labels=ids, measure=True)
    assert is_correct.all()
    np.testing.assert_allclose(nats, -np.log((1 + (1 + 1000 / size) / 2000) / 2), rtol=1e-9)


def test_without_labels_there_is_no_baseline(task):
    assert task.baselines([batch(task, [(A, -100)])], []) == []
