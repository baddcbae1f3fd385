"""The DeepSpeed library: its environment variables and its import."""

import pytest

from gearshift.engines.base import EngineError
from gearshift.engines.zero.library import clean_architectures, load


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("8.0;9.0a", "8.0;9.0"),
        ("9.0a;10.0a;12.0f+PTX", "9.0;10.0;12.0+PTX"),
        ("8.0 9.0 9.0a+PTX", "8.0;9.0;9.0+PTX"),
        ("9.0;9.0a", "9.0"),
        ("Hopper;9.0", "9.0"),
        ("Hopper", None),  # DeepSpeed asks the device
        (None, None),
    ],
)
def test_architectures_are_written_as_deepspeed_reads_them(before, after):
    environment = {"TORCH_CUDA_ARCH_LIST": before} if before else {}
    clean_architectures(environment)
    assert environment.get("TORCH_CUDA_ARCH_LIST") == after


def test_a_device_without_deepspeed_is_refused():
    with pytest.raises(EngineError, match="do not run on device mps; allowed: cpu, cuda, xpu"):
        load("mps")
