import pytest
import torch

from models.common.layers import _has_variable_lengths, takes_boundaries

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
