import torch

from models.abr.config import SIZES
from models.abr.loss import TERMS
from models.abr.network import Network
from models.abr.responses import Statistics

FULL = {
    "static": 128,
    "input": 29_504,
    "encoder.0": 105_480,
    "encoder.1": 374_408,
    "encoder.2": 1_420_168,
    "encoder.3": 5_526_920,
    "bottleneck": 9_303_240,
    "decoder.0": 22_148_377,
    "decoder.1": 5_757_593,
    "decoder.2": 1_451_353,
    "decoder.3": 378_585,
    "output": 57_600,
    "heads.signal": 120_490,
    "heads.peak": 25_092,
    "heads.class": 12_935,
    "heads.threshold": 8_386,
}
"""The table of the specification."""


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_each_size_and_each_block_of_full_has_the_specified_parameters():
    for size, total in (("tiny", 44_769), ("lite", 820_449), ("full", 46_720_259)):
        with torch.device("meta"):  # shapes alone: nothing is drawn
            model = Network(SIZES[size], Statistics(), TERMS)
        assert count(model) == SIZES[size].parameters == total, size
    assert {name: count(model.get_submodule(name)) for name in FULL} == FULL
