"""Written JSON is valid for every parser, and loses nothing."""

import json
import math
from pathlib import Path

import numpy as np
import torch

from gearshift.training.logging.encoding import encode, encode_bytes


def strict(text):
    """JSON parsed by the standard; Python also accepts NaN and Infinity."""

    def reject(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=reject)


def test_floats_come_back_bit_by_bit():
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**53 + 2.0]
    assert [v.hex() for v in strict(encode(values))] == [v.hex() for v in values]


def test_nonfinite_numbers_are_strings_that_float_parses():
    text = encode({"a": [math.nan, math.inf], "b": {"c": -math.inf}, "d": None})
    assert strict(text) == {"a": ["NaN", "Infinity"], "b": {"c": "-Infinity"}, "d": None}
    assert math.isnan(float("NaN")) and float("-Infinity") == -math.inf


def test_numbers_of_other_libraries_and_paths_are_plain():
    value = {"n": np.int64(3), "f": np.float64(0.5), "t": torch.tensor(2.0), "p": Path("a/b")}
    assert strict(encode(value)) == {"n": 3, "f": 0.5, "t": 2.0, "p": "a/b"}


def test_text_with_surrogates_is_valid_json():
    text = "é \udc80 \x1b \n"
    assert strict(encode_bytes({"text": text})) == {"text": text}
