import pytest
import torch

from gearshift.models.common.family import Sums
from gearshift.models.event_seg.metric import measure, scores


class FixedPredictions(torch.nn.Module):
    """Returns given maps."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, events, labels, measure=False):
        return self.maps.sum(), self.maps


def scored(predicted, mask):
    maps, metric = torch.stack((1.0 - predicted, predicted), dim=1), Sums(measure, scores)
    return metric.result(metric.update(FixedPredictions(maps), {"events": None, "mask": mask}))


def test_overlap_is_counted_over_all_pixels_that_count():
    predicted = (torch.rand(3, 8, 9) < 0.4).float()
    mask = torch.randint(0, 2, (3, 8, 9))
    mask[0, :3] = -100
    result = scored(predicted, mask)
    seen = mask >= 0
    true, positive = (mask == 1) & seen, (predicted > 0.5) & seen
    both = (true & positive).sum().item()
    assert result["val_iou"] == pytest.approx(both / (true | positive).sum().item())
    precision, recall = both / positive.sum().item(), both / true.sum().item()
    assert (result["precision"], result["recall"]) == pytest.approx((precision, recall))
    assert result["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert result["all_foreground_iou"] == pytest.approx((true.sum() / seen.sum()).item())


@pytest.mark.parametrize(
    ("predicted", "true", "iou", "precision", "recall"),
    [(0, 0, 1, 1, 1), (0, 1, 0, 0, 0), (1, 0, 0, 0, 0), (1, 1, 1, 1, 1)],
)
def test_an_empty_prediction_of_an_empty_label_scores_one(predicted, true, iou, precision, recall):
    ones = torch.ones(1, 4, 4)
    result = scored(ones * predicted, (ones * true).long())
    assert [result[n] for n in ("val_iou", "precision", "recall")] == [iou, precision, recall]
