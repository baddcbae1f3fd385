"""The settings that ranks compare before they start."""

from dataclasses import replace

from launcher.run.worker import consistency_facts
from tests.launcher.given import LAPTOP, resolved


def test_settings_of_one_machine_are_not_compared():
    larger = replace(LAPTOP, cores=64, ram_bytes=2**40)
    same = [resolved("loader.workers=2", machine=machine, world_size=2) for machine in (LAPTOP, larger)]
    assert consistency_facts(same[0]) == consistency_facts(same[1])


def test_different_settings_give_different_facts():
    first, second = (consistency_facts(resolved(f"optim.lr={lr}")) for lr in ("1e-3", "2e-3"))
    assert {name for name in first if first[name] != second[name]} == {"optim.lr"}
