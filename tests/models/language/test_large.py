import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

BYTES = 120_000_000
PARAGRAPH = "some words that stand in every line of a very long text\n" * 60

GROWN = """
import sys, time
import tokenizers, torch
from gearshift.models.base import Context
from gearshift.models.language.config import Data, Model
from gearshift.models.language.task import LanguageTask

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

before, began = peak(), time.perf_counter()
context = Context(0, 0.1, None, torch.device("cpu"))
task = LanguageTask(Model(size="tiny"), Data(path=sys.argv[1]), context)
task.setup()
seconds = time.perf_counter() - began
for name in ("train", "val"):
    samples = task.data(name)
    for number in range(100):
        samples.sample(number * (len(samples) // 100), None)
facts = task.facts()
print(peak() - before, facts["bytes"] / seconds, sum(facts["tokens"].values()))
"""


def json_lines(path):
    with path.open("w", encoding="utf-8") as file:
        for number in range(BYTES // len(PARAGRAPH) + 1):
            file.write(json.dumps({"text": f"part {number}\n{PARAGRAPH}"}) + "\n")


@pytest.fixture
def disk(monkeypatch):
    """Temporary folder removed after the test; tmp_path would remain for a while."""
    with TemporaryDirectory(prefix="gearshift-large-") as folder:
        monkeypatch.setenv("GEARSHIFT_CACHE", f"{folder}/cache")
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_peak_memory_stays_small_whatever_the_size_of_the_data(disk):
    path = disk / "data.jsonl"
    json_lines(path)
    for is_first in (True, False):
        command = [sys.executable, "-c", GROWN, str(path)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        grown, speed, tokens = map(float, found.split())
        print(f"{grown / 2**20:.0f} MiB, {speed / 1e6:.0f} MB/s, {is_first=}")
        assert grown < 60 * 2**20
        assert tokens > 0.9 * BYTES
