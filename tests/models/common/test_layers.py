import pytest
import torch

from gearshift.models.common.layers import Dropout, _has_variable_lengths, takes_boundaries


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_rest_scaled_up(dtype):
    torch.manual_seed(0)
    x = torch.ones(3, 33_333, dtype=dtype, requires_grad=True)  # no multiple of four elements
    y = Dropout(0.25)(x)
    y.sum().backward()
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert set(y.unique().tolist()) == {0, torch.tensor(4 / 3, dtype=dtype).item()}
    assert (y == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(x.grad, y)
    gone = (y == 0).flatten()[: 4 * 24_999].view(-1, 4).float()  # one draw decides four
    assert torch.corrcoef(gone.T).triu(1).abs().max() < 0.03


CUDA, HALF = torch.device("cuda", 0), torch.bfloat16


@pytest.mark.skipif(not _has_variable_lengths(), reason="torch before 2.11 lacks the kernel")
@pytest.mark.parametrize(
    ("generation", "name", "device", "dtype", "takes"),
    [
        (8, "auto", CUDA, torch.float16, True),
        (9, "flash", CUDA, HALF, True),
        (9, "efficient", CUDA, HALF, False),
        (9, "math", CUDA, HALF, False),
        (9, "auto", CUDA, torch.float32, False),
        (9, "auto", torch.device("cpu"), HALF, False),
        (9, "auto", torch.device("mps"), HALF, False),
        (7, "auto", CUDA, torch.float16, False),
    ],
)
def test_flash_attention_in_16_bits_takes_boundaries_and_others_a_mask(
    monkeypatch, generation, name, device, dtype, takes
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (generation, 0))
    assert takes_boundaries(name, device, dtype) == takes
