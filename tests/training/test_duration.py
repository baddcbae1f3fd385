"""Durations in steps are the nearest whole number, and at least one."""

from fractions import Fraction

import pytest

from gearshift.training import duration


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
    assert duration.steps(length, 7, 90) == round(exact)


@pytest.mark.parametrize("length", [-1, "101%", "-1%", "1 epoch more", "two epochs", "1e3"])
def test_what_is_no_duration_is_refused(length):
    with pytest.raises(ValueError, match="allowed"):
        duration.validate(length)
