import pytest
import torch

from gearshift.models.common.predictions import FixedDraws


@pytest.mark.slow
def test_scores_of_a_window_are_those_of_its_own_mask(ready_task):
    task = ready_task()
    torch.manual_seed(0)
    model, windows = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = task.predictions(model)
        sample = windows.sample(len(windows) - 1, FixedDraws())
        maps = model(torch.from_numpy(sample["events"])[None])[0]
    predicted, true = (maps[1] > maps[0]).numpy(), sample["labels"] == 1
    name, events, iou, precision, recall = found.rows[-1]
    both, either = (predicted & true).sum(), (predicted | true).sum()
    assert found.columns == ("window", "events", "iou", "precision", "recall")
    assert iou == pytest.approx(both / either)
    assert (precision, recall) == pytest.approx((both / predicted.sum(), both / true.sum()))
    assert name.startswith(sample["meta"]["recording"]) and events == sample["meta"]["events"]
