"""Settings of training, and durations: in steps the nearest whole number, and at least one."""

from fractions import Fraction

import pytest

from gearshift.training.settings import duration_steps, nested, validate_duration


def test_keys_with_dots_are_branches_of_one_tree():
    values = {"model.family": "abr", "optim.lr": 0.1, "model.size.width": 8, "seed": 3}
    model = {"family": "abr", "size": {"width": 8}}
    assert nested(values) == {"model": model, "optim": {"lr": 0.1}, "seed": 3}


@pytest.mark.parametrize(
    ("length", "exact"),
    [
        ("33%", Fraction(33, 100) * 90),
        ("2.5%", Fraction(25, 1000) * 90),
        ("100 %", Fraction(90)),
        ("1 epoch", Fraction(7)),
        ("1.25 epochs", Fraction(5, 4) * 7),
        ("0.1%", Fraction(1)),
        ("0%", Fraction(0)),
        (13, Fraction(13)),
    ],
)
def test_a_duration_is_rounded_to_the_nearest_step(length, exact):
    assert duration_steps(length, 7, 90) == round(exact)


@pytest.mark.parametrize("length", [-1, "101%", "-1%", "1 epoch more", "two epochs", "1e3"])
def test_what_is_no_duration_is_refused(length):
    with pytest.raises(ValueError, match="allowed"):
        validate_duration(length)
