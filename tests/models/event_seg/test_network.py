import json

import pytest
import torch
from torch.nn import functional as F

import launcher
from models.event_seg.config import MAX_LAYERS, SIZES
from models.event_seg.network import IGNORE, MaskedEncoder, SegmentationNetwork, flops_per_sample
from tests.models.event_seg.writers import write_mvsec


def build(name, weight=5.0):
    torch.manual_seed(0)
    return SegmentationNetwork(SIZES[name], weight, (1, 100, 200, 5))


@pytest.mark.parametrize(
    ("name", "count"),
    [("tiny", 17_218), ("lite", 260_866), ("lite-1M", 1_080_258), ("full", 4_310_914)],
)
def test_a_size_has_exactly_its_parameters_and_each_gets_a_gradient(name, count):
    model = build(name)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name].parameters == count
    model(torch.randn(2, 10, 44, 52), torch.randint(0, 2, (2, 44, 52))).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shape", [(32, 44), (33, 47), (130, 173)])
def test_maps_are_as_large_as_the_grid(name, shape):
    assert build(name)(torch.randn(1, 10, *shape)).shape == (1, 2, *shape)


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


@pytest.mark.parametrize("make", [lambda: build("tiny"), lambda: MaskedEncoder(SIZES["tiny"])])
def test_hidden_pixels_are_masked_in_the_input_and_only_they_count(make):
    torch.manual_seed(0)
    model, events = make().eval(), torch.randn(2, 10, 32, 44)
    hidden, mass = torch.rand(2, 32, 44) < 0.5, torch.rand(2, 2, 32, 44)
    loss, maps = model(events, mass, hidden, measure=True)
    changed = torch.where(hidden[:, None], torch.randn_like(events), events)
    torch.testing.assert_close(model(changed, mass, hidden), loss)
    expected = F.mse_loss(maps, mass, reduction="none").mean(1)[hidden].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shape", [(32, 44), (33, 47)])
def test_the_masked_encoder_predicts_every_pixel_and_has_the_encoder_of_the_network(name, shape):
    torch.manual_seed(0)
    model = MaskedEncoder(SIZES[name])
    events, hidden = torch.randn(1, 10, *shape), torch.ones(1, *shape, dtype=torch.bool)
    loss, maps = model(events, torch.randn(1, 2, *shape), hidden, measure=True)
    assert maps.shape == (1, 2, *shape)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    names = {n: t.shape for n, t in model.state_dict().items() if n.startswith("down.")}
    whole = build(name).state_dict()
    assert names == {n: t.shape for n, t in whole.items() if n.startswith("down.")}


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


@pytest.mark.parametrize("name", SIZES)
def test_flops_match_the_flop_counter_of_torch(name):
    from torch.utils.flop_counter import FlopCounterMode

    model = build(name)
    height, width = 48, 64  # halved without a rest in every layer
    events = torch.randn(1, 10, height, width, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(events, torch.randint(0, 2, (1, height, width))).backward()
    assert flops_per_sample(SIZES[name], height, width) == counter.get_total_flops()


@pytest.mark.parametrize("name", SIZES)
def test_flops_of_the_masked_encoder_match_the_flop_counter_of_torch(name):
    from torch.utils.flop_counter import FlopCounterMode

    height, width = 48, 64
    events = torch.randn(1, 10, height, width, requires_grad=True)
    hidden = torch.ones(1, height, width, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        MaskedEncoder(SIZES[name])(events, torch.rand(1, 2, height, width), hidden).backward()
    found = flops_per_sample(SIZES[name], height, width, "encoder")
    assert found == counter.get_total_flops()


@pytest.mark.parametrize("name", SIZES)
def test_a_frozen_encoder_has_no_backward_in_the_flops(name):
    size, shape = SIZES[name], (48, 64)
    depth, scale = len(size.widths), 2 ** (len(size.widths) - size.is_deep)
    whole, frozen = (flops_per_sample(size, *shape, is_frozen=yes) for yes in (False, True))
    head = 6 * size.widths[-1] * 2 * scale**2 * (48 * 64 // scale**2)
    down = flops_per_sample(size, *shape, "encoder") - head
    assert whole - frozen == down * 2 / 3 and depth >= 3


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("widths", [[3, 5], [4, 8, 4, 2], [2] * MAX_LAYERS])
def test_own_widths_replace_those_of_a_size_and_keep_its_layout(make_task, size, widths):
    task = make_task(size=size, widths=widths)
    model = task.build()
    layers = [layer[0] for layer in model.down]
    assert [layer.out_channels for layer in layers] == widths
    assert layers[0].stride == build(size).down[0][0].stride
    assert [layer[0].out_channels for layer in model.up] == widths[-2::-1]
    assert sum(p.numel() for p in model.parameters()) == task.size.parameters
    model(torch.randn(1, 10, 32, 44), torch.randint(0, 2, (1, 32, 44))).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("size", "widths", "count"),
    [
        ("lite-1M", None, 1_080_258),
        ("lite", [6, 12], (90 * 6 + 18) + (54 * 12 + 36) + (16 * 72 + 18) + (16 * 12 + 2)),
    ],
)
def test_the_documented_lite_and_own_widths_train_on_mvsec(tmp_path, size, widths, count):
    path = write_mvsec(tmp_path / "outdoor_day1_data.hdf5", frames=40)
    launcher.train(
        model=f"event_seg:{size}",
        mode="lite",
        engine="local",
        settings={"data.path": str(path), "model.widths": widths, "train.max_steps": 2},
        out=tmp_path / "run",
        console=False,
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["parameters"] == count and result["mode"] == "lite"
    assert "downsampled by 2, samples of 26×34" in result["data"]["sensor"]
