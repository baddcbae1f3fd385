"""Devices, threads and the host allocator of a process."""

import subprocess
import sys

import pytest
import torch

from gearshift.engines.base import EngineError
from gearshift.engines.device import devices, pick_device, use, use_threads


def test_auto_takes_an_existing_device_and_the_cpu_serves_any_number_of_processes():
    assert devices()[pick_device("auto").type] >= 1
    assert pick_device("cpu", local_rank=63, local_size=64) == torch.device("cpu")


def test_a_missing_or_unknown_device_is_an_error_with_those_there_are():
    for kind in (k for k, count in devices().items() if not count):
        with pytest.raises(EngineError, match=f"'{kind}' does not exist; this machine has: .*cpu"):
            pick_device(kind)
    message = "unknown device 'gpu'; allowed: auto, cuda, xpu, mps, cpu"
    with pytest.raises(EngineError, match=message):
        pick_device("gpu")


@pytest.mark.gpu
def test_expandable_segments_are_on():
    use(torch.device("cuda", 0))
    torch.ones(2**20, device="cuda")
    assert any(s["is_expandable"] for s in torch.cuda.memory_snapshot())


@pytest.mark.gpu
def test_more_processes_than_gpus_are_an_error_unless_each_sees_only_its_own(monkeypatch):
    there = torch.cuda.device_count()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(EngineError, match=f"start at most {there}"):
        pick_device("cuda", local_rank=0, local_size=there + 1)
    # srun --gpus-per-task=1 shows a task one GPU; check_ranks finds two ranks with the same one.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert pick_device("cuda", local_rank=there, local_size=there + 1) == torch.device("cuda", 0)


HOLES = """
import sys
import torch, psutil
from gearshift.engines.device import return_freed
if sys.argv[1] == "returned":
    assert return_freed()
torch.zeros(6 * 2**20)  # 24 MiB, freed: from now on glibc keeps smaller blocks
kept, small = [], []
for _ in range(40):
    kept.append(torch.zeros(2**20))  # 4 MiB
    small.append(torch.zeros(2**10))  # a live block in the heap
before = psutil.Process().memory_info().rss
kept.clear()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_between_live_blocks_is_returned():
    freed = {}
    for how in ("kept", "returned"):
        done = subprocess.run(
            [sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True
        )
        freed[how] = float(done.stdout)
    assert freed["returned"] > 150 > freed["kept"]


def test_the_processes_of_a_machine_take_its_gpus_by_turns(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = [pick_device(setting, rank, 4) for setting in ("cuda", "auto") for rank in range(4)]
    assert found == [torch.device("cuda", rank) for rank in range(4)] * 2
    with pytest.raises(EngineError, match="start at most 4"):
        pick_device("cuda", 0, 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # each process has GPUs of its own
    assert pick_device("cuda", 4, 5) == torch.device("cuda", 0)


def test_an_offloaded_optimizer_has_the_given_threads_or_an_even_share_of_the_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(12)), raising=False)
    for text, given, processes, expected in (
        ("1", None, 4, 3),
        ("1", None, 64, 1),
        ("5", None, 4, 5),
        ("1", 2, 4, 2),
        ("5", 2, 4, 2),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        restore = use_threads(given, processes)
        assert torch.get_num_threads() == expected
        restore()
        assert torch.get_num_threads() == before
