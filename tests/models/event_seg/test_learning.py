import pytest

from tests.models.tasks import train_tiny


@pytest.mark.slow
def test_tiny_finds_edges_far_better_than_chance(tmp_path):
    _, found = train_tiny("event_seg", tmp_path / "run", 100)
    assert found["val_iou"] > 1.5 * found["all_foreground_iou"] + 0.1
    assert found["precision"] > found["all_foreground_iou"]


@pytest.mark.slow
def test_without_information_tiny_ends_at_chance(tmp_path):
    result, found = train_tiny("event_seg", tmp_path / "run", 50, data__control="shuffle")
    band = result["data"]["control"]["val_iou"]
    assert band["chance"] == pytest.approx(found["all_foreground_iou"])
    assert found["val_iou"] <= band["max"] == band["chance"] + 0.03
