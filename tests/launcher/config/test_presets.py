"""A mode changes a default as declared."""

import pytest

from gearshift.launcher.config import scaled_change

SIZES = ("tiny", "small", "lite", "full")


ONE_FOURTH = {"scale": 0.25}
TENTH = {"scale": 0.1, "at_least": 1}
SMALLER = {"smaller_of": ["lite", "tiny"]}


@pytest.mark.parametrize(
    ("change", "default", "value"),
    [
        (ONE_FOURTH, 16, 4),
        (ONE_FOURTH, 1, 1),
        ({"scale": 0.5}, 0, 0),
        ({"scale": 0.75}, 0.1, 0.075),
        ({"scale": 2}, 1e-4, 2e-4),
        ({"scale": 2}, "1 epoch", "2 epochs"),
        ({"scale": 0.5}, "2 epochs", "1 epoch"),
        ({"scale": 0.5}, "5%", "2.5%"),
        (TENTH, 3.0, 1),
        ({"at_most": 1}, 4, 1),
        ({"scale": 0.5}, None, None),
        (SMALLER, "full", "lite"),
        (SMALLER, "lite", "tiny"),
        (SMALLER, "tiny", "tiny"),
    ],
)
def test_a_change_is_applied_to_the_value(change, default, value):
    changed, how = scaled_change.apply_change(change, default, SIZES)
    assert changed == value and type(changed) is type(value)
    assert how.startswith("{") and scaled_change.apply_change(3, default, SIZES) == (3, "")
