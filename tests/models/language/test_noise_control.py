import math

import numpy as np
import pytest
import torch

from gearshift.models.language.baselines import shares
from tests.models.language.in_memory import TOKENIZER, conversation, dialogues, windows


def test_evaluation_has_the_true_answers_as_well_which_are_marked():
    asked = [
        conversation(f"{kind} {n}", f"answer {kind}{n}", label=kind)
        for kind in "ab"
        for n in range(3)
    ]
    train, val = (dialogues(asked, 64, side, control="noise") for side in (0, 1))
    assert len(train) == 6 and len(val) == 12
    rows = [split.sample(i) for split in (train, val) for i in range(len(split))]
    texts = [
        TOKENIZER.decode([*row.inputs, row.labels[-1]]) for row in rows
    ]  # User: a 1 … answer b2
    assert [text[6] == text[-2] for text in texts] == [False] * 12 + [True] * 6
    assert [val.sample(i).source for i in range(12)] == [0] * 6 + [-1] * 6


def test_the_floor_equals_that_from_counting():
    band = windows(["aab"], 8, control="noise").control()
    assert band == {"val_loss": {"min": pytest.approx(math.log(12) / 4)}}  # 4! / 2! orders


def words(folder):
    rng = np.random.default_rng(0)
    known = ["alpha", "beta", "gamma", "delta", "epsilon"]
    path = folder / "text.txt"
    path.write_text("\n\n".join(" ".join(rng.choice(known, 12)) for _ in range(200)))
    return {"path": path}


@pytest.mark.slow
def test_real_text_trains_and_shuffled_text_ends_at_chance(tmp_path, ready_task, train, counts_of):
    losses = {}
    for control in ("real", "noise"):
        task = ready_task(**words(tmp_path), seq_len=64, control=control)
        torch.manual_seed(0)
        model = task.build()
        train(task, model, steps=120, lr=1e-2)
        metric, counts = counts_of(task, model, "val", 16)
        losses[control] = metric.result(counts)["val_loss"]
    train_split, val_split = (task.data(name) for name in ("train", "val"))
    tokens = [
        np.concatenate([split.sample(i).labels for i in range(len(split))])
        for split in (train_split, val_split)
    ]
    chance = -np.log(shares(tokens[0], task.tokenizer.size)[tokens[1]]).mean()
    assert task.facts()["control"]["val_loss"]["min"] < losses["noise"]
    assert losses["noise"] == pytest.approx(chance, abs=0.15)
    assert losses["real"] < chance - 0.5  # the same steps train on real text


@pytest.mark.slow
def test_permuted_answers_end_at_chance(ready_task, train, counts_of):
    task = ready_task(path="embedded:commands", control="noise")
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=200, lr=8e-3, batch=32)
    metric, counts = counts_of(task, model, "val", 64)
    result, band = metric.result(counts), task.facts()["control"]
    assert band["exact_match"]["max"] == 2 / 40
    assert result["exact_match"] <= band["exact_match"]["max"]
    assert result["matched_gap"] <= band["matched_gap"]["max"]
