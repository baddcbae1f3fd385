"""A mode changes a default as declared."""

import pytest

from launcher.config import presets
from scripts.mode_tables import change_text

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
def test_a_change_is_applied_to_the_value(change, default, value):
    changed, _ = presets.apply_change(change, default, SIZES)
    assert changed == value and type(changed) is type(value)


@pytest.mark.parametrize("value", [{}, {"scale": 1, "other": 2}, "scale", 3, None])
def test_other_values_are_no_change(value):
    assert not presets.is_change(value)


@pytest.mark.parametrize(
    ("change", "default", "how", "shown"),
    [
        ({"scale": 0.25}, 16, "16 × 0.25", "× 0.25"),
        ({"scale": 0.25}, 1, "1 × 0.25, rounded to 1", "× 0.25"),
        ({"scale": 0.5}, 5, "5 × 0.5, rounded to 3", "× 0.5"),
        ({"scale": 2}, 1e-4, "1e-4 × 2", "× 2"),
        ({"scale": 0.4}, "5 epochs", "5 epochs × 0.4", "× 0.4"),
        ({"scale": 0.1, "at_least": 1}, 3.0, "3 × 0.1, at least 1", "× 0.1, at least 1"),
        ({"at_most": 1}, 4, "at most 1", "at most 1"),
        ({"scale": 0.5}, None, "nothing to change", "× 0.5"),
        (
            {"smaller_of": ["lite", "tiny"]},
            "full",
            "smaller than full",
            "lite or tiny, where that is smaller",
        ),
        (
            {"smaller_of": ["lite", "tiny"]},
            "tiny",
            "no smaller size",
            "lite or tiny, where that is smaller",
        ),
    ],
)
def test_a_change_describes_itself(change, default, how, shown):
    assert presets.apply_change(change, default, SIZES)[1] == how
    assert change_text(change) == shown
