"""What ranks compare of their settings before they begin."""

from dataclasses import replace

from launcher.run.rank_consistency import facts
from tests.launcher.given import LAPTOP, resolved


def test_settings_of_one_machine_are_not_compared():
    larger = replace(LAPTOP, cores=64, ram_bytes=2**40)
    same = [resolved("loader.workers=2", machine=one, world_size=2) for one in (LAPTOP, larger)]
    assert facts(same[0]) == facts(same[1])


def test_other_settings_give_other_facts():
    one, other = (facts(resolved(f"optim.lr={lr}")) for lr in ("1e-3", "2e-3"))
    assert {name for name in one if one[name] != other[name]} == {"optim.lr"}
