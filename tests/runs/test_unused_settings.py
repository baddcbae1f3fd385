"""A setting that cannot act is reported, and an error where the run asks for that."""

import pytest

from tests.launcher.given import python

OF_SEVERAL = ("engine.timeout_s=30", "log.stragglers=2")


@pytest.mark.slow
@pytest.mark.parametrize("setting", OF_SEVERAL)
def test_settings_of_several_ranks_are_unused_with_one(tmp_path, setting):
    words = ["-m", "launcher", "--model", "language:tiny", "--max-steps", "1", "--set", setting]
    strict = [*words, "--set", "unread_settings=error", "--out", str(tmp_path / "run")]
    alone = python(*strict)
    assert alone.returncode == 2
    assert f"where         --set {setting}" in alone.stderr
    assert python(*strict, "--engine", "ddp", "--nproc", "2").returncode == 0
