import numpy as np
import pytest
import torch

from models.abr.preview import UNKNOWN, predict
from models.abr.responses import CLASS_NAMES
from models.common.fixed_samples import few_samples

CPU = torch.device("cpu")


def test_a_row_tells_what_is_known_and_what_the_model_tells(make_task):
    task = make_task()
    task.setup()
    torch.manual_seed(0)
    model, portion = task.build().eval(), task.data("val")
    with torch.no_grad():
        found = predict(model, portion, CPU)
        batch = task.collate(few_samples(portion, 4))
        told = model(batch["signal"], batch["static"])
    for place, cells in enumerate(found.rows):
        row = dict(zip(found.columns, cells, strict=True))
        assert row["class"] == CLASS_NAMES[batch["target"][place]]
        assert row["class told"] == CLASS_NAMES[told["class"][place].argmax()]
        assert row["threshold told"] == pytest.approx(float(told["threshold"][place]), rel=1e-5)
        seen = told["exists"][place] >= 0
        assert (row["wave V told"] != UNKNOWN) == bool(seen)
        rms = task.dataset.statistics.signal_rms
        error = (told["signal"][place] - batch["signal"][place]).square().mean().sqrt() * rms
        assert row["error µV"] == pytest.approx(float(error), rel=1e-4)
        known = portion.responses.labels["latency"][portion.index[0]]
        assert place or row["wave V ms"] == pytest.approx(float(known), nan_ok=True)


def test_what_nobody_knows_is_no_number(make_task, series):
    for number in range(6):
        series(f"ABR-{number}-1", seed=number)
    task = make_task(path=str(series("ABR-9-1", seed=9).parent))
    task.setup()
    torch.manual_seed(0)
    with torch.no_grad():
        found = predict(task.build().eval(), task.data("val"), CPU)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert {row[name] for name in found.columns[1:-1]} == {UNKNOWN}
    assert np.isfinite(row["error µV"]) and len(found.pictures) == len(found.rows)
