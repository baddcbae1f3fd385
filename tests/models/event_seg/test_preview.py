import io

import numpy as np
import pytest
import torch
from PIL import Image

from models.common.predictions import FixedDraws
from models.event_seg.preview import draw_sample, predict
from models.event_seg.windows import Sample

META = {"recording": "night.raw", "frame": 7, "t0": 1.0, "t1": 1.0333, "events": 12345}


def pixels(picture):
    """Both halves, of the size of the window."""
    image = np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))
    times = len(image) // 20
    image = image[::times, ::times]
    return image[:, :30], image[:, 34:]


@pytest.fixture
def events():
    grid = np.zeros((10, 20, 30), np.float32)
    grid[:, 2:9, 5:12], grid[:, 12:18, 20:28] = 0.3, -0.3
    return grid


def test_brighter_is_red_and_darker_blue_with_the_label_beside(events):
    labels = np.zeros((20, 30), np.int64)
    labels[4:8], labels[15:] = 1, -100
    picture = draw_sample(Sample(events, labels, META), 3)
    left, right = pixels(picture)
    assert left[5, 8].tolist() == [214, 39, 40] and left[15, 25].tolist() == [31, 119, 180]
    assert (left[0] == 255).all()
    assert (right[5] == 255).all() and (right[0] == 0).all() and (right[16] == 127).all()
    assert picture.name == "window_3" and picture.caption == (
        "night.raw, window 7: 12,345 events in 33.3 ms (red brighter, blue darker), and its label"
    )


CPU = torch.device("cpu")


def test_scores_of_a_window_are_those_of_its_own_mask(ready_task):
    task = ready_task()
    torch.manual_seed(0)
    model, windows = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = predict(model, windows, CPU)
        sample = windows.sample(len(windows) - 1, FixedDraws())
        maps = model(torch.from_numpy(sample.events)[None])[0]
    predicted, true = (maps[1] > maps[0]).numpy(), sample.labels == 1
    name, events, iou, precision, recall = found.rows[-1]
    both, either = (predicted & true).sum(), (predicted | true).sum()
    assert found.columns == ("window", "events", "iou", "precision", "recall")
    assert iou == pytest.approx(both / either)
    assert (precision, recall) == pytest.approx((both / predicted.sum(), both / true.sum()))
    assert name.startswith(sample.meta["recording"]) and events == sample.meta["events"]
