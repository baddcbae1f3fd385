"""A tracked run is bit-equal to an untracked one."""

import json

import pytest

ARGS = "--model language:tiny --max-steps 6 --batch-size 4 --set log.every=1"
MEASURED = ("_time_s", "_per_s", "_bytes", "_percent")


@pytest.mark.slow
def test_losses_are_bit_equal(program, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")

    def lines(out, *args):
        assert program(*ARGS.split(), "--out", out, *args).returncode == 0
        found = map(json.loads, (program.folder / out / "metrics.jsonl").read_text().splitlines())
        return [{k: v for k, v in line.items() if not k.endswith(MEASURED)} for line in found]

    assert lines("tracked", "--track", "wandb") == lines("alone")
    assert "launcher track tracked" in (program.folder / "tracked" / "log.txt").read_text()
