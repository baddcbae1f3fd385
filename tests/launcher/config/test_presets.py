"""A mode changes a default as declared."""

import pytest

from gearshift.launcher.config import scaled_change

SIZES = ("tiny", "small", "lite", "full")


ONE_FOURTH = {"scale": 0.25}
TENTH = {"scale": 0.1, "at_least": 1}
SMALLER = {"smaller_of": ["lite", "tiny"]}


@pytest.mark.parametrize(
    ("change", "default", "value", "how"),
    [
        (ONE_FOURTH, 16, 4, "16 × 0.25"),
        (ONE_FOURTH, 1, 1, "1 × 0.25, rounded to 1"),
        ({"scale": 0.5}, 0, 0, "0 × 0.5"),
        ({"scale": 0.75}, 0.1, 0.075, "0.1 × 0.75"),
        ({"scale": 2}, 1e-4, 2e-4, "1e-4 × 2"),
        ({"scale": 2}, "1 epoch", "2 epochs", "1 epoch × 2"),
        ({"scale": 0.5}, "2 epochs", "1 epoch", "2 epochs × 0.5"),
        ({"scale": 0.5}, "5%", "2.5%", "5% × 0.5"),
        (TENTH, 3.0, 1, "3 × 0.1, at least 1"),
        ({"at_most": 1}, 4, 1, "at most 1"),
        ({"scale": 0.5}, None, None, "nothing to change"),
        (SMALLER, "full", "lite", "smaller than full"),
        (SMALLER, "lite", "tiny", "smaller than lite"),
        (SMALLER, "tiny", "tiny", "no smaller size"),
    ],
)
def test_a_change_is_applied_to_the_value_and_says_how(change, default, value, how):
    changed, said = scaled_change.apply_change(change, default, SIZES)
    assert (changed, said) == (value, how) and type(changed) is type(value)
