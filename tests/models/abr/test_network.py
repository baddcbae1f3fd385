import pytest
import torch

from gearshift.models.abr.config import SIZES
from gearshift.models.abr.layers import SequenceAttention, upsample
from gearshift.models.abr.loss import TERMS
from gearshift.models.abr.network import Network
from gearshift.models.abr.responses import Statistics
from tests.models.tasks import Operators


def build_network(terms=TERMS, size="tiny"):
    torch.manual_seed(0)
    return Network(SIZES[size], Statistics(), terms)


def inputs(batch=3):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 1, 200, generator=generator),
        torch.randn(batch, 4, generator=generator),
    )


@pytest.mark.parametrize(
    ("terms", "frozen"),
    [(("signal",), {"peak", "class", "threshold"}), (("signal", "exists", "threshold"), {"class"})],
)
def test_a_head_without_labels_is_frozen_and_has_no_output(terms, frozen):
    model = build_network(terms)
    assert tuple(model(*inputs())) == terms
    still = {
        n.split(".")[0].removesuffix("_head")
        for n, p in model.named_parameters()
        if not p.requires_grad
    }
    assert still - {"peak"} == frozen - {"peak"}
    for name in ("exists", "latency", "amplitude"):
        branch = model.peak_head.get_submodule(name)
        assert all(p.requires_grad == (name in terms) for p in branch.parameters())


@pytest.mark.parametrize(("deviations", "expected"), [(0, 30), (2, 60), (-3, 0)])
def test_a_threshold_is_standard_deviations_from_the_mean_and_never_negative(deviations, expected):
    model = Network(SIZES["tiny"], Statistics(threshold=(30.0, 15.0)), TERMS)
    last = model.threshold_head[-1][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, deviations)
    found = model(*inputs())["threshold"]
    assert (found > 0).all()
    assert found.tolist() == pytest.approx([expected] * 3, abs=0.01)


def test_relative_positions_differ_up_to_32():
    torch.manual_seed(0)
    attention = SequenceAttention(8, 2, bias=False)
    query, positions = torch.randn(1, 2, 50, 4), torch.randn(65, 8)
    added = attention._distances(query, positions)
    for row, column in ((0, 0), (0, 31), (0, 32), (0, 49), (49, 0), (20, 17)):
        distance = max(-32, min(32, column - row)) + 32
        for head in range(2):
            key = positions[distance, 4 * head : 4 * head + 4]
            wanted = query[0, head, row] @ key / 2
            torch.testing.assert_close(added[0, head, row, column], wanted)


def test_upsampling_matches_torch():
    for short, long in ((13, 25), (100, 200), (5, 5)):
        x = torch.randn(2, short, 3)
        wanted = torch.nn.functional.interpolate(x.mT, long, mode="linear").mT
        torch.testing.assert_close(upsample(x, long), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", ["tiny", "lite"])
def test_flash_kernels_run_in_all_attentions_without_relative_positions(size):
    model = Network(SIZES[size], Statistics(), TERMS, "flash")
    with Operators() as called:
        model(*inputs(1))
    in_signal_head, flash = 2, [name for name in called.names if "flash_attention" in name]
    assert len(flash) == SIZES[size].levels * SIZES[size].layers + in_signal_head


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
    "signal_head": 120_490,
    "peak_head": 25_092,
    "class_head": 12_935,
    "threshold_head": 8_386,
}
"""The table of the specification."""


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_each_size_and_each_block_of_full_has_the_specified_parameters():
    for size, total in (("tiny", 153_961), ("lite", 820_449), ("full", 46_720_259)):
        with torch.device("meta"):  # shapes alone: nothing is drawn
            model = Network(SIZES[size], Statistics(), TERMS)
        assert count(model) == SIZES[size].parameters == total, size
    assert {name: count(model.get_submodule(name)) for name in FULL} == FULL
