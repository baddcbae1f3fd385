import pytest
import torch
from torch import nn

from gearshift.models.event_seg.config import SIZES
from gearshift.models.event_seg.network import IGNORE, SegmentationNetwork


def build(name, weight=5.0):
    torch.manual_seed(0)
    return SegmentationNetwork(SIZES[name], weight, (1, 100, 200, 5))


@pytest.mark.parametrize(
    ("name", "count"),
    [("tiny", 17_218), ("lite", 260_866), ("lite-1M", 1_080_258), ("full", 4_310_914)],
)
def test_a_size_has_exactly_its_parameters_and_maps_as_large_as_the_grid(name, count):
    model = build(name)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name].parameters == count
    for shape in ((32, 44), (33, 47)):
        assert model(torch.randn(1, 10, *shape)).shape == (1, 2, *shape)


def test_the_loss_is_the_weighted_sum_over_pixels_that_count():
    model, events = build("tiny").eval(), torch.randn(2, 10, 32, 44)
    labels = torch.randint(0, 2, (2, 32, 44))
    labels[0, :, :20] = IGNORE
    nats = -model(events).double().log_softmax(1)
    expected = nats[:, 0][labels == 0].sum() + 5 * nats[:, 1][labels == 1].sum()
    loss, maps = model(events, labels, measure=True)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(maps, model(events))


def test_a_batch_in_which_nothing_counts_gives_zero_with_gradients():
    model, events = build("tiny"), torch.randn(2, 10, 32, 44)
    loss = model(events, torch.full((2, 32, 44), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in model.parameters())


def test_weights_in_bfloat16_are_normalized_by_statistics_in_float32():
    model, events = build("tiny"), torch.randn(2, 10, 32, 44)
    labels = torch.randint(0, 2, (2, 32, 44))
    expected = model(events, labels).item()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    loss = model(events.bfloat16(), labels)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=0.02)
    norm = model.down[0][1]
    assert norm.running_mean.dtype == torch.float32 and norm.num_batches_tracked == 2
    assert norm.weight.grad.dtype == torch.bfloat16


def test_stored_weights_compute_as_those_of_torch():
    model, events = build("tiny").eval(), torch.randn(2, 10, 32, 44)
    x = events
    for layer in model.blocks:
        ours = layer[0] if isinstance(layer, nn.Sequential) else layer
        options = ours.in_channels, ours.out_channels, ours.kernel_size, ours.stride, ours.padding
        is_up = isinstance(ours, nn.ConvTranspose2d)
        theirs = (nn.ConvTranspose2d if is_up else nn.Conv2d)(*options)
        weight = ours.weight.permute(0, 3, 1, 2).contiguous()
        assert weight.shape == theirs.weight.shape
        theirs.load_state_dict({"weight": weight, "bias": ours.bias})
        x = theirs(x)
        x = x if ours is layer else layer[2](layer[1](x))
    torch.testing.assert_close(x[..., :32, :44], model(events))
