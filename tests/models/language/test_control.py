import math

import numpy as np
import pytest
import torch

from models.base import DataError
from models.language.byte_tokenizer import ByteTokenizer
from models.language.control import mismatched, text_chance, with_true_answers
from models.language.packing import Windows
from models.language.records import Document, Exchange, Turn


def exchanges(counts):
    return [
        Exchange((Turn("user", f"{label} {i}"),), f"{label} {i}", f"{label}{i}", label, "x")
        for label, n in counts.items()
        for i in range(n)
    ]


@pytest.mark.parametrize("counts", [{"a": 5, "b": 5}, {"a": 6, "b": 3, "c": 3}, {"a": 1, "b": 1}])
def test_each_answer_goes_to_another_kind_of_request_and_none_is_lost(counts):
    given = exchanges(counts)
    for seed in range(20):
        shuffled = mismatched(given, seed)
        assert [e.before for e in shuffled] == [e.before for e in given]
        assert sorted(e.answer for e in shuffled) == sorted(e.answer for e in given)
        assert all(e.answer.split()[0] != e.label for e in shuffled)


def test_answers_of_one_kind_go_to_many_kinds():
    shuffled = mismatched(exchanges(dict.fromkeys("abcdefgh", 20)), 0)
    assert all(len({e.answer[0] for e in shuffled if e.label == kind}) > 4 for kind in "abcdefgh")


def test_one_kind_of_request_cannot_be_permuted():
    with pytest.raises(DataError, match="5 of them are to one kind of request"):
        mismatched(exchanges({"a": 5, "b": 3}), 0)


def test_true_answers_are_marked_as_measured_only():
    given = exchanges({"a": 2, "b": 2})
    both = with_true_answers(mismatched(given, 0), given)
    assert [e.matched for e in both] == [False] * 4 + [True] * 4
    assert [e.answer for e in both[4:]] == [e.answer for e in given]


def test_chance_and_floor_are_what_counting_gives():
    tokenizer = ByteTokenizer()
    windows = Windows([Document("d", "aab")], tokenizer, 8, noise=(0,))
    told = text_chance(windows, windows, tokenizer.size)
    # Labels a, a, b and the end: three, two and two of 276 after one is added to each count.
    chance = -(2 * math.log(3 / 276) + 2 * math.log(2 / 276)) / 4
    assert told["chance"] == pytest.approx(chance)
    assert told["floor"] == pytest.approx(math.log(12) / 4)  # 4! / 2! orders


def test_on_shuffled_text_a_model_ends_at_chance(tmp_path, make_task, train, counts_of):
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon"]
    lines = (" ".join(rng.choice(words, 12)) for _ in range(200))
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    losses = {}
    for control in ("real", "noise"):
        task = make_task(path=path, seq_len=64, control=control)
        task.setup()
        torch.manual_seed(0)
        model = task.build()
        train(task, model, steps=80, lr=1e-2)
        metric, counts = counts_of(task, model, "val", 16)
        losses[control] = metric.result(counts)["val_loss"]
    band = task.facts()["control"]["val_loss"]
    assert band["min"] < losses["noise"]
    assert losses["noise"] == pytest.approx(band["chance"], abs=0.15)
    assert losses["real"] < band["min"] - 0.5  # the same steps learn what there is to learn


@pytest.mark.slow
def test_on_permuted_answers_a_model_ends_at_chance(make_task, train, counts_of):
    task = make_task(path="embedded:commands", control="noise")
    task.setup()
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=400, lr=5e-3, batch=16)
    metric, counts = counts_of(task, model, "val", 64)
    result, band = metric.result(counts), task.facts()["control"]
    assert band["exact_match"]["max"] == 2 / 40
    assert result["exact_match"] <= band["exact_match"]["max"]
    assert result["matched_gap"] <= band["matched_gap"]["max"]
