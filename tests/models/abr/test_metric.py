import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from gearshift.models.abr.dataset import chance_macro_f1
from gearshift.models.abr.loss import TERMS, TermSums
from gearshift.models.abr.metric import auroc, macro_f1, measure, scores


def confusion(target, predicted):
    counts = torch.zeros(5, 5, dtype=torch.float64)
    for a, b in zip(target, predicted, strict=True):
        counts[a, b] += 1
    return counts


def test_macro_f1_matches_its_definition_over_the_classes_that_occur():
    rng = np.random.default_rng(0)
    target, predicted = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    f1, recalls = [], []
    for c in range(5):
        right = ((target == c) & (predicted == c)).sum()
        precision = right / max(1, (predicted == c).sum())
        recall = right / max(1, (target == c).sum())
        f1.append(2 * precision * recall / (precision + recall) if right else 0.0)
        recalls.append(recall)
    found = macro_f1(confusion(target, predicted))
    assert found["val_macro_f1"] == pytest.approx(np.mean(f1[:4]))
    assert found["val_balanced_accuracy"] == pytest.approx(np.mean(recalls[:4]))
    assert found["absent_classes"] == 1 and "f1_conductive" not in found
    assert found["f1_total"] == pytest.approx(f1[3])


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(1)
    having, without = rng.integers(0, 20, 60), rng.integers(0, 15, 40)
    pairs = [(1.0 if h > w else 0.5 if h == w else 0.0) for h in having for w in without]
    counts = (np.bincount(x, minlength=20) for x in (without, having))
    found = auroc(*(torch.tensor(c, dtype=torch.float64) for c in counts))
    assert found == pytest.approx(np.mean(pairs))
    assert auroc(torch.zeros(4), torch.ones(4)) is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 12.0, 300.0])
def test_auroc_of_confident_logits_is_that_of_their_ranks(scale):
    rng = np.random.default_rng(0)
    exists = rng.random(2000) < 0.6
    logits = scale * (rng.normal(2.0, 1.0, 2000) + np.where(exists, 1.7, -1.7))
    ranks = rankdata(logits.astype(np.float32))
    count = exists.sum()
    exact = (ranks[exists].sum() - count * (count + 1) / 2) / (count * (len(ranks) - count))

    signal = torch.zeros(2000, 1, 200)
    batch = {
        "signal": signal,
        "static": torch.zeros(2000, 4),
        "exists": torch.tensor(exists).float(),
    }
    batch["exists_mask"] = torch.ones(2000, dtype=torch.bool)
    outputs = {"exists": torch.tensor(logits).float()}
    sums = measure(TermSums("mse", 0.0, (1.0,) * 5), lambda *inputs: outputs, batch)
    vectors = {
        n: torch.cat([torch.as_tensor(x).double().flatten() for x in parts])
        for n, parts in sums.items()
    }
    found = scores({"exists": 1.0}, vectors)["val_exists_auroc"]
    # Some pairs of 2,000 responses share a bin.
    assert found == pytest.approx(exact, abs=1e-3)


def test_metrics_of_labels_that_the_split_lacks_are_undefined(ready_task, batch_of):
    task = ready_task()
    metric = task.metric()
    counts = metric.update(task.build(), batch_of(task, 4))
    names, found = set(metric.result(counts + 1)), metric.result(torch.zeros_like(counts))
    undefined = {name for name, value in found.items() if value is None}
    assert undefined == {name for name in names if name.startswith("val_")} - {"val_loss"}


def test_the_loss_is_that_of_one_big_batch_with_every_term_at_its_weight(ready_task, batch_of):
    task = ready_task()
    task.set_progress(0.0, 10.0)  # no matter how far the curriculum is
    torch.manual_seed(0)
    model, metric = task.build().eval(), task.metric()
    batch = batch_of(task, 40, "val")
    found = metric.result(metric.update(model, batch))
    task.set_progress(10.0, 10.0)
    sums, weight = task.loss(model, batch).sum, task.num_units(batch)
    wanted = sum(sums[term].item() / weight[term] for term in TERMS)
    assert found["val_loss"] == pytest.approx(wanted, rel=1e-5)
    outputs = model(batch["signal"], batch["static"])
    error = (outputs["signal"] - batch["signal"]).square().mean().item()
    assert found["val_signal_mse"] == pytest.approx(error, rel=1e-5)
    known = batch["latency_mask"]
    late = (outputs["latency"] - batch["latency"])[known].abs().mean().item()
    assert found["val_latency_mae_ms"] == pytest.approx(late, rel=1e-5)


def test_chance_is_the_best_of_two_blind_guesses():
    for counts, wanted in (
        ((797, 8, 106, 33, 56), 0.177),  # the most frequent class alone
        ((40, 15, 15, 15, 15), 0.190),  # each class equally often
        ((1, 0, 0, 0, 0), 1.0),  # a single class is always right
        ((1, 1, 0, 0, 0), 0.5),
    ):
        target = np.repeat(np.arange(5), counts)
        assert chance_macro_f1(target) == pytest.approx(wanted, abs=5e-4), counts
