"""The DeepSpeed library: its environment variables and its import."""

import pytest

from gearshift.engines.base import EngineError
from gearshift.engines.zero.library import load


def test_a_device_without_deepspeed_is_refused():
    with pytest.raises(EngineError, match="do not run on device mps; allowed: cpu, cuda, xpu"):
        load("mps")
