"""The DeepSpeed library: its environment variables and its import."""

import os

import pytest

from engines.base import EngineError
from engines.zero.library import clean_architectures, load


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


def test_deepspeed_accepts_the_cleaned_architectures(monkeypatch):
    """DeepSpeed's own parser, which splits at the dot and parses the rest as a number."""
    builder = pytest.importorskip("deepspeed.ops.op_builder.builder")
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0a;10.0a")

    class Builder(builder.CUDAOpBuilder):
        def __init__(self):
            super().__init__("nothing")
            self.jit_mode = True

        def sources(self):
            return []

        def absolute_name(self):
            return "nothing"

    with pytest.raises(ValueError, match="0a"):
        Builder().compute_capability_args()
    clean_architectures(os.environ)
    Builder().compute_capability_args()


def test_a_device_without_deepspeed_is_refused():
    with pytest.raises(EngineError, match="do not run on device mps; allowed: cpu, cuda, xpu"):
        load("mps")


def test_a_deepspeed_that_is_too_old_is_refused(monkeypatch):
    deepspeed = load("cpu")
    monkeypatch.setattr(deepspeed, "__version__", "0.19.7")
    with pytest.raises(EngineError, match=r"deepspeed 0\.19\.7 is installed; .* 0\.19\.8 or"):
        load("cpu")
    monkeypatch.setattr(deepspeed, "__version__", "0.19.8+1a2b3c")
    load("cpu")
