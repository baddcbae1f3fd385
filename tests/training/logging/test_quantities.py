"""Numbers in readable units."""

import math

import pytest

from training.logging.quantities import amount, duration, real, size


@pytest.mark.parametrize(
    ("render", "cases"),
    [
        (
            duration,
            {0.04: "0.0 s", 9.94: "9.9 s", 59.4: "59 s", 59.6: "1m00s", 192: "3m12s"}
            | {7500: "2h05m", 97_200: "1d03h"},
        ),
        (size, {512: "512 B", 2048: "2.0 KiB", 300 * 2**20: "300.0 MiB", 1.25 * 2**30: "1.2 GiB"}),
        (
            amount,
            {0: "0.00", 8.514: "8.51", 9.996: "10.0", 99.96: "100", 999.4: "999", 999.6: "1.00k"}
            | {12_345: "12.3k", 3_200_000: "3.20M", 1.5e12: "1.50T"},
        ),
        (
            real,
            {3.21454: "3.2145", 0.0: "0.0000", 1.234e-5: "1.23e-05", 2.5e6: "2.50e+06"}
            | {math.nan: "nan", -math.inf: "-inf"},
        ),
    ],
)
def test_numbers_have_readable_units(render, cases):
    assert {number: render(number) for number in cases} == cases
