import numpy as np
import pytest
import torch

from gearshift.models.abr.baselines import baselines, forest
from gearshift.models.abr.metric import BEST
from gearshift.models.abr.responses import LABELS


def batch(count, known=True):
    """Responses whose first point tells class and wave V; the age tells the latency."""
    rng = np.random.default_rng(count)
    signal = torch.from_numpy(rng.standard_normal((count, 1, 200), np.float32))
    static = torch.from_numpy(rng.standard_normal((count, 4), np.float32))
    number = torch.arange(count)
    signal[:, 0, 0] = 10.0 * (number % 2)
    static[:, 0] = number % 4
    values = {
        "exists": number % 2,
        "latency": 5.0 + number % 4,
        "amplitude": 0.1 * (number % 2),
        "threshold": 20.0 * (1 + number % 2),
    }
    masks = {f"{name}_mask": torch.full((count,), known) for name in LABELS}
    target = torch.where(torch.full((count,), known), number % 2, -100)
    columns = {name: column.float() for name, column in values.items()}
    return {"signal": signal, "static": static, "target": target, **columns, **masks}


def test_each_method_reaches_what_its_input_tells():
    mean, facts, points = baselines([batch(80), batch(40)], [batch(24)])
    # Two classes, each half: as often as the other gives an F1 of 0.5 in each.
    assert mean.metrics["val_macro_f1"] == pytest.approx(0.5)
    assert mean.metrics["val_exists_auroc"] == 0.5
    # The medians of 5 to 8 ms and of 20 and 40 dB are 1 ms and 10 dB away.
    assert mean.metrics["val_latency_mae_ms"] == pytest.approx(1)
    assert mean.metrics["val_threshold_mae_db"] == pytest.approx(10)
    assert facts.metrics["val_latency_mae_ms"] < 0.1
    assert points.metrics["val_macro_f1"] == points.metrics["val_exists_auroc"] == 1
    assert points.metrics["val_threshold_mae_db"] < 2
    assert set(points.metrics) == {"val_macro_f1", "val_exists_auroc"} | {
        BEST[name] for name in LABELS[1:]
    }


def test_unknown_labels_are_neither_fitted_nor_measured():
    given = batch(40)
    given["latency"][::2] = 0
    given["latency_mask"][::2] = False
    # The other latencies are 6 and 8 ms.
    mean, _, _ = baselines([given], [given])
    assert mean.metrics["val_latency_mae_ms"] == pytest.approx(1)
    assert baselines([batch(40)], [batch(40, known=False)]) == []


def test_a_forest_returns_the_labels_of_what_a_threshold_separates():
    inputs = np.repeat(np.array([[0.0, 1.0], [1.0, 1.0]], np.float32), 5, axis=0)
    labels = np.repeat(np.array([[3.0, 0.0], [7.0, 1.0]], np.float32), 5, axis=0)
    asked = np.array([[1.0, 1.0], [0.0, 1.0]], np.float32)
    assert forest(inputs, labels, asked, 8).tolist() == [[7, 1], [3, 0]]
