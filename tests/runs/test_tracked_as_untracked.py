"""A tracked run is bit-equal to an untracked one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ARGS = "--model language:tiny --max-steps 6 --batch-size 4 --set log.every=1 train.preview=false"
_TIMES = (
    *("step_time_s", "data_time_s", "forward_time_s", "backward_time_s", "optimizer_time_s"),
    *("samples_per_s", "tokens_per_s", "host_memory_bytes"),
)


def lines(out: Path, *args: str) -> list[dict]:
    first, *sets = ARGS.split("--set")
    sets = [f"--set={text}" for text in sets[0].split()]
    environ = {**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "launcher", *first.split(), *sets, f"--out={out}", *args],
        env=environ,
        check=True,
        capture_output=True,
    )
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    untimed = [{k: v for k, v in line.items() if k not in _TIMES} for line in found]
    return [{k: v for k, v in line.items() if not k.endswith("_percent")} for line in untimed]


@pytest.mark.slow
def test_losses_are_bit_equal(tmp_path):
    tracked = lines(tmp_path / "tracked", "--track", "wandb")
    assert tracked == lines(tmp_path / "alone")
    assert "wandb sync" in (tmp_path / "tracked" / "log.txt").read_text()
