import numpy as np
import pytest
import torch

from models.common.fixed_samples import FixedDraws
from models.event_seg.metric import MassMetric
from models.event_seg.preview import predict
from tests.models.event_seg.writers import random_events, write_raw

CPU = torch.device("cpu")


def test_scores_of_a_window_are_those_of_its_own_mask(make_task):
    task = make_task()
    task.setup()
    torch.manual_seed(0)
    model, windows = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = predict(model, windows, CPU)
        sample = windows.sample(len(windows) - 1, FixedDraws())
        maps = model(torch.from_numpy(sample.events)[None])[0]
    told, true = (maps[1] > maps[0]).numpy(), sample.labels == 1
    name, events, iou, precision, recall = found.rows[-1]
    both, either = (told & true).sum(), (told | true).sum()
    assert found.columns == ("window", "events", "iou", "precision", "recall")
    assert iou == pytest.approx(both / either)
    assert (precision, recall) == pytest.approx((both / told.sum(), both / true.sum()))
    assert name.startswith(sample.meta["recording"]) and events == sample.meta["events"]


def test_hidden_pixels_are_shown_where_there_are_no_labels(make_task, tmp_path, monkeypatch):
    monkeypatch.setenv("GEARSHIFT_CACHE", str(tmp_path / "cache"))
    recording = write_raw(tmp_path / "a.raw", random_events(6000, 600_000))
    task = make_task(path=recording, size="lite")
    task.setup()
    torch.manual_seed(0)
    model, windows = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = predict(model, windows, CPU)
        alone = task.collate([windows.sample(0, FixedDraws())])
        metric = MassMetric()
        r2 = metric.result(metric.update(model, alone))["val_masked_r2"]
    assert found.columns == ("window", "events", "masked_r2")
    assert found.rows[0][2] == pytest.approx(r2, rel=1e-4)
    assert np.isfinite([row[2] for row in found.rows]).all()
