"""Samples that a run keeps for its report."""

import io
import json

import pytest
from PIL import Image

from gearshift.launcher.run.callbacks import SamplesWriter
from gearshift.models.base import Picture, Predictions
from gearshift.training.storage import Storage


def png(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def events():
    return []


@pytest.fixture
def writer(tmp_path, events):
    return SamplesWriter(Storage(tmp_path), lambda *event: events.append(event))


def test_the_newest_samples_of_each_time_are_kept(tmp_path, writer, events):
    for step, shown in ((3, "old"), (6, "new")):
        pictures = [Picture("../../out", "<caption>", png(9, 9))]
        found = Predictions(("name", "text", "score"), [("a", shown, float("nan"))], pictures)
        writer.sampled(found, "after", step)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *("after-1.png", "after.json", "samples")
    ]
    assert json.loads((tmp_path / "samples" / "after.json").read_text()) == {
        "step": 6,
        "columns": ["name", "text", "score"],
        "rows": [["a", "new", "NaN"]],
        "pictures": [{"name": "../../out", "caption": "<caption>", "file": "after-1.png"}],
    }
    assert Image.open(tmp_path / "samples" / "after-1.png").size == (9, 9)
    assert events == []


@pytest.mark.parametrize("is_full", [True, False])
def test_a_failure_is_a_warning(tmp_path, writer, events, is_full):
    if is_full:
        (tmp_path / "samples").write_text("in the way")
    drawn = png(9, 9) if is_full else b"no picture"
    writer.sampled(Predictions(("name",), [("a",)], [Picture("a", "", drawn)]), "before", 0)
    [(kind, facts)] = events
    assert kind == "warning" and facts["subject"] == "samples"
