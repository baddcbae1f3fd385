import pytest
import torch

from models.common.layers import _has_variable_lengths, takes_boundaries

CUDA, HALF = torch.device("cuda", 0), torch.bfloat16


@pytest.fixture(params=[(8, 0), (9, 0)])
def gpu(request, monkeypatch):
    if not _has_variable_lengths():
        pytest.skip("torch before 2.11 has no attention by boundaries")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: request.param)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["auto", "flash"])
def test_flash_attention_in_16_bits_takes_boundaries(gpu, name, dtype):
    assert takes_boundaries(name, CUDA, dtype)


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("efficient", CUDA, HALF),
        ("math", CUDA, HALF),
        ("auto", CUDA, torch.float32),
        ("auto", torch.device("cpu"), HALF),
        ("auto", torch.device("mps"), HALF),
    ],
)
def test_others_take_a_mask(gpu, name, device, dtype):
    assert not takes_boundaries(name, device, dtype)


def test_an_old_gpu_takes_a_mask(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not takes_boundaries("auto", CUDA, torch.float16)
