"""The reader that docs/run-folder.md shows for other languages reads saved checkpoints."""

import json
import subprocess
import sys

from gearshift.training.checkpoint.manifest import Score
from tests.docs.pages import ROOT
from tests.training.checkpoint.states import BUFFERS, bits, saving, state, whole

PRINT_CONTENT = """
import sys
assert not {"torch", "training", "safetensors"} & set(sys.modules)
print(json.dumps({"|".join(key): list(t.tobytes()) for key, t in tensors.items()}))
"""


def save(world, run):
    saver = saving(run, world, in_background=True)
    mine = state(whole(), world.rank, world.size, replicated=False)
    saver.save(7, mine, {"samples": 1}, True, Score("loss", 1.0, "min"))
    saver.wait()


def test_the_documented_reader_reads_every_tensor_bit_by_bit(tmp_path, two_ranks):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    two_ranks.run(save, tmp_path / "runs" / "mine")
    reader = (ROOT / "docs" / "examples" / "read_checkpoint.py").read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-c", reader + PRINT_CONTENT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {f"{kind}|{n}": t for kind, tensors in whole().items() for n, t in tensors.items()}
    expected |= {f"buffer|{name}": buffer for name, buffer in BUFFERS.items()}
    assert found == {key: bits(tensor) for key, tensor in expected.items()}
