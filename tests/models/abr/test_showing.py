import numpy as np
import pytest
import torch

from gearshift.models.abr.config import CLASS_NAMES
from gearshift.models.abr.showing import estimates
from gearshift.models.common.predictions import few_samples


def test_a_row_shows_the_labels_and_the_outputs_of_the_model(ready_task):
    task = ready_task()
    torch.manual_seed(0)
    model, split = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = task.predictions(model)
        batch = task.collate(few_samples(split, 4))
        outputs = model(batch["signal"], batch["static"])
    for number, cells in enumerate(found.rows):
        row = dict(zip(found.columns, cells, strict=True))
        assert row["true class"] == CLASS_NAMES[batch["target"][number]]
        assert row["hear_loss"] == CLASS_NAMES[outputs["class"][number].argmax()]
        threshold = float(outputs["threshold"][number])
        assert float(row["threshold (dB)"]) == pytest.approx(threshold, rel=1e-5)
        seen = outputs["exists"][number] >= 0
        assert bool(row["v_latency (ms)"]) == bool(seen)
        known = task.records.labels["latency"][split.numbers[0]]
        assert number or float(row["true latency"] or np.nan) == pytest.approx(
            float(known), nan_ok=True
        )


@pytest.mark.parametrize("count", [1, 3])
def test_each_response_has_its_own_estimates(ready_task, count):
    task = ready_task()
    model = task.build().eval()
    batch = task.collate(few_samples(task.data("val"), count))
    with torch.no_grad():
        found = estimates(task, model(batch["signal"], batch["static"]))
    assert {len(values) for values in found.values()} == {count}
