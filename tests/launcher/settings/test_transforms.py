"""A mode changes a default in the way it says."""

import pytest

from launcher.settings import transforms

SIZES = ("tiny", "small", "lite", "full")


@pytest.mark.parametrize(
    ("change", "default", "value"),
    [
        ({"scale": 0.25}, 16, 4),
        ({"scale": 0.25}, 2, 1),
        ({"scale": 0.25}, 1, 1),
        ({"scale": 0.5}, 0, 0),
        ({"scale": 0.5}, 5, 3),
        ({"scale": 0.75}, 8, 6),
        ({"scale": 0.75}, 0.1, 0.075),
        ({"scale": 0.5}, 1e-4, 5e-5),
        ({"scale": 2}, "1 epoch", "2 epochs"),
        ({"scale": 0.5}, "2 epochs", "1 epoch"),
        ({"scale": 0.5}, "1 epoch", "0.5 epochs"),
        ({"scale": 0.5}, "5%", "2.5%"),
        ({"scale": 0.1, "at_least": 1}, 3.0, 1),
        ({"scale": 0.1, "at_least": 1}, 100.0, 10.0),
        ({"at_most": 1}, 4, 1),
        ({"at_most": 1}, 0, 0),
        ({"scale": 0.5}, None, None),
        ({"smaller_of": ["lite", "tiny"]}, "full", "lite"),
        ({"smaller_of": ["lite", "tiny"]}, "small", "tiny"),
        ({"smaller_of": ["lite", "tiny"]}, "lite", "tiny"),
        ({"smaller_of": ["lite", "tiny"]}, "tiny", "tiny"),
    ],
)
def test_a_change_gives_its_value(change, default, value):
    assert transforms.apply(change, default, SIZES) == value


def test_whole_numbers_stay_whole():
    assert type(transforms.apply({"scale": 0.3}, 10, SIZES)) is int


@pytest.mark.parametrize("value", [{}, {"scale": 1, "other": 2}, "scale", 3, None])
def test_other_values_are_no_change(value):
    assert not transforms.is_transform(value)
