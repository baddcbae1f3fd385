import math

import pytest
import torch

from gearshift.models.abr.loss import TERMS, TermRamps, TermSums, units

WEIGHTS = (0.5, 1.0, 2.0, 1.0, 1.0)


def batch():
    return {
        "signal": torch.randn(3, 1, 200),
        "static": torch.randn(3, 4),
        "latency": torch.tensor([5.6, 6.1, 0.0]),
        "latency_mask": torch.tensor([True, True, False]),
        "amplitude": torch.tensor([0.0, 0.4, 0.0]),
        "amplitude_mask": torch.tensor([False, True, False]),
        "exists": torch.tensor([1.0, 1.0, 0.0]),
        "exists_mask": torch.tensor([True, True, False]),
        "target": torch.tensor([0, 2, -100]),
        "threshold": torch.tensor([30.0, 0.0, -5.0]),
        "threshold_mask": torch.tensor([True, False, True]),
    }


def outputs():
    torch.manual_seed(1)
    outputs_by_name = {term: torch.randn(3) + 6 for term in TERMS}
    outputs_by_name |= {"signal": torch.randn(3, 1, 200), "class": torch.randn(3, 5)}
    return {term: x.requires_grad_() for term, x in outputs_by_name.items()}


def test_sums_match_explicit_formulas():
    given, predicted = batch(), outputs()
    sums = TermSums("mse", 0.0, WEIGHTS)(predicted, given)
    x = {name: tensor.detach().double() for name, tensor in predicted.items()}
    assert sums["signal"].item() == pytest.approx(
        float(((x["signal"] - given["signal"]) ** 2).sum() / 200), rel=1e-5
    )
    assert sums["exists"].item() == pytest.approx(
        sum(math.log1p(math.exp(-v)) for v in x["exists"][:2].tolist()), rel=1e-5
    )
    errors = (x["latency"][:2] - torch.tensor([5.6, 6.1])) ** 2
    assert sums["latency"].item() == pytest.approx(errors.sum().item(), rel=1e-5)
    assert sums["amplitude"].item() == pytest.approx(
        (x["amplitude"][1] - 0.4).item() ** 2, rel=1e-5
    )
    logs = x["class"].log_softmax(-1)
    assert sums["class"].item() == pytest.approx(
        -(0.5 * logs[0, 0] + 2 * logs[1, 2]).item(), rel=1e-5
    )
    # A threshold below 0 dB counts as 0.
    goals = (math.log1p(30), 0.0)
    predicted_db = (x["threshold"][0].item(), x["threshold"][2].item())
    wanted = sum((math.log1p(a) - b) ** 2 for a, b in zip(predicted_db, goals, strict=True))
    assert sums["threshold"].item() == pytest.approx(wanted, rel=1e-5)


def test_a_term_without_known_labels_is_0_with_gradients():
    given, predicted = batch(), outputs()
    for mask in ("latency_mask", "amplitude_mask", "exists_mask", "threshold_mask"):
        given[mask] = torch.zeros_like(given[mask])
    given["target"] = torch.full((3,), -100)
    sums = TermSums("mse", 0.05, WEIGHTS)(predicted, given)
    for term in set(TERMS) - {"signal"}:
        assert units(given, TERMS)[term] == 0 and sums[term].item() == 0, term
        sums[term].backward(retain_graph=True)
        assert predicted[term].grad is not None and not predicted[term].grad.any(), term


def test_huber_is_linear_for_large_errors_and_does_not_affect_the_threshold():
    given, predicted = batch(), outputs()
    predicted["latency"] = torch.tensor([105.6, 6.1, 0.0])
    square, huber = (
        TermSums(regression, 0.0, WEIGHTS)(predicted, given) for regression in ("mse", "huber")
    )
    assert huber["latency"].item() == pytest.approx(100 - 0.5, rel=1e-4)
    assert square["latency"].item() == pytest.approx(10000, rel=1e-4)
    assert huber["threshold"] == square["threshold"] and huber["class"] == square["class"]
    assert huber["signal"] < square["signal"]


CURRICULUM = TermRamps({"latency": 5, "class": 3, "threshold": 10}, ramp=5)
STARTING = ("latency", "class", "threshold")


def test_terms_start_in_turn_and_ramp_linearly():
    at = {epoch: CURRICULUM.factors(epoch, 100) for epoch in (0, 4, 7.5, 10, 12.5, 15)}
    assert at[0] == {"latency": 0, "class": 0, "threshold": 0}
    assert at[4] == {"latency": 0, "class": 0.2, "threshold": 0}
    assert at[7.5] == {"latency": 0.5, "class": 0.9, "threshold": 0}
    assert at[10]["latency"] == 1 and at[12.5]["threshold"] == 0.5
    assert set(at[15].values()) == {1.0}
    at_once = TermRamps({"class": 2}, ramp=0)
    assert [at_once.factors(epoch, 10)["class"] for epoch in (1.9, 2)] == [0, 1]


@pytest.mark.parametrize("epochs", [0.5, 1, 8, 20])
def test_a_short_run_has_every_term_at_full_weight_by_60_percent(epochs):
    done = CURRICULUM.factors(0.6 * epochs, epochs)
    assert done == pytest.approx(dict.fromkeys(STARTING, 1.0))
    before = CURRICULUM.factors(0.5 * epochs, epochs)
    assert 0 < before["threshold"] < 1 == before["latency"]
