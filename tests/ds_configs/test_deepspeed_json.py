"""The shipped DeepSpeed files set partitioning and offload, and nothing of the run."""

from __future__ import annotations

from importlib.resources import files

import pytest

from gearshift.engines.catalog import ENGINES
from gearshift.engines.zero.config import FREE, ZERO, shipped

FOLDER = files("gearshift.ds_configs") / "deepspeed"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.name.endswith(".json"))


def test_each_deepspeed_engine_has_its_file_and_each_file_its_engine():
    assert sorted(e.ds_config for e in ENGINES.values() if e.ds_config) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_sets_the_partitioning_and_offload_of_its_name_and_no_more(name):
    values = shipped(name)
    assert set(values) == {"zero_optimization"}
    plain = {key for key, value in values[ZERO].items() if not isinstance(value, dict)}
    assert {f"{ZERO}.{key}" for key in plain - {"stage"}} <= FREE
    assert "auto" not in str(values)
    stage, _, offload = name.removesuffix(".json").removeprefix("zero").partition("-")
    zero = shipped(name)["zero_optimization"]
    blocks = ["offload_optimizer", "offload_param"]
    kept = [key for key in blocks if zero.get(key, {}).get("device") == "cpu"]
    assert zero["stage"] == int(stage)
    assert kept == ([] if not offload else blocks[: int(stage) - 1])
