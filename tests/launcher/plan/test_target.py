"""Machines described by options, and the errors of those options."""

from dataclasses import replace

import pytest

from launcher.base.diagnostics import SettingsError
from launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES
from launcher.plan.target import Described, describe
from tests.launcher.given import LAPTOP, SERVER, resolved


def described(here=LAPTOP, **values):
    diagnostics = []
    flags = {f"--{name.replace('_', '-')}": text for name, text in values.items()}
    return describe(flags, here, diagnostics), diagnostics


def test_without_options_it_is_this_machine():
    found, diagnostics = described()
    assert (found.machine, found.nodes, found.device_bytes) == (LAPTOP, 1, None)
    assert not diagnostics
    target = found.target(resolved())
    assert (target.ranks, target.device, target.ram_bytes) == (1, "cpu", LAPTOP.ram_bytes)


def test_gpus_memory_and_nodes():
    found, _ = described(gpus="4", gpu_memory="24GiB", ram="1TB", nodes="2")
    assert (found.machine.gpus, found.machine.device) == (4, "cuda")
    assert (found.machine.ram_bytes, found.device_bytes) == (10**12, 24 * 2**30)
    target = found.target(on(found, engine="fsdp"))
    assert (target.nodes, target.ranks_per_node, target.ranks) == (2, 4, 8)
    fixed = CONTEXT_BYTES + NCCL_BYTES
    assert (target.device, target.device_bytes) == ("cuda", 24 * 2**30 - fixed)


def on(found, **options):
    """Settings of a run on the described nodes."""
    return found.resolve(lambda size: resolved(machine=found.machine, world_size=size, **options))


def test_on_several_nodes_nproc_is_the_number_of_ranks_of_each():
    found, _ = described(gpus="8", nodes="2")
    run = on(found, engine="fsdp", nproc="2")
    assert (run.nproc, run.world_size, run.batching.world_size) == (2, 4, 4)
    target = found.target(run)
    assert (target.ranks_per_node, target.ranks) == (2, 4)
    assert described(nodes="1")[0].resolve(lambda size: resolved(nproc="2")).world_size == 2


def test_more_nodes_than_ranks_are_an_error():
    with pytest.raises(SettingsError) as raised:
        on(described(gpus="1", nodes="4")[0], engine="local")
    (error,) = raised.value.diagnostics
    assert error.message == "--nodes 4 is more than the 1 rank of engine local"
    assert (error.where, error.fix) == ("--nodes 4", "--nodes 1")
    assert "fsdp" in (error.allowed or "") and "local" not in (error.allowed or "")


def test_a_count_is_a_whole_number_and_a_size_has_a_unit():
    for text, size in (("24gb", 24e9), ("1.5 TiB", 1.5 * 2**40), ("8g", 2**33)):
        assert described(ram=text)[0].machine.ram_bytes == size
    for name, text in (("gpus", "0"), ("nodes", "two")):
        _, (error,) = described(**{name: text})
        assert error.message == f"--{name} {text} is not a count"
    for text, fix in (("24", "--gpu-memory 24GiB"), ("24 apples", None), ("0GiB", None)):
        _, (error,) = described(gpu_memory=text)
        assert (error.where, error.fix) == (f"--gpu-memory {text}", fix)
        assert "GiB" in error.allowed


@pytest.mark.parametrize(
    ("name", "memory", "has_bf16"), [("h200", 141, True), ("T4", 16, False), ("RTX-3090", 24, True)]
)
def test_a_named_gpu_has_the_memory_and_precision_of_its_data_sheet(name, memory, has_bf16):
    found, diagnostics = described(gpu=name)
    assert not diagnostics
    assert (found.machine.gpus, found.device_bytes) == (1, memory * 2**30)
    assert found.machine.gpu_bf16 is has_bf16 and found.gpu is not None
    assert described(gpu=name, gpu_memory="8GiB", gpus="2")[0].device_bytes == 2**33
    assert described(gpu_memory="12GiB")[0].machine.gpus == 1
    assert described(SERVER, gpu_memory="12GiB")[0].machine.gpus == SERVER.gpus


def test_a_gpu_is_named_by_all_of_its_name_or_with_its_memory():
    _, (error,) = described(gpu="H10")
    assert error.allowed == "H100 NVL, H100 PCIe, H100 80GB HBM3"
    assert error.fix == "--gpu 'H100 NVL'"
    assert error.message == "several GPUs are named 'H10'"
    _, (error,) = described(gpu="no such thing")
    assert error.message == "unknown GPU 'no such thing'"
    assert "H200" in error.allowed and "MI300X" in error.allowed
    _, (error,) = described(gpu="A100")
    assert "A100 SXM4 80GB" in error.allowed and error.fix == "--gpu A100 --gpu-memory SIZE"
    found, diagnostics = described(gpu="A100", gpu_memory="80GiB")
    assert not diagnostics and found.device_bytes == 80 * 2**30
    assert described(gpu="A100 PCIE 40GB")[0].device_bytes == 40 * 2**30


def test_gpus_of_this_machine_have_the_memory_that_the_driver_tells():
    fixed = CONTEXT_BYTES + NCCL_BYTES
    here = replace(SERVER, gpu_bytes=2**34 + fixed, gpu_others_bytes=(2**20,))
    run = resolved(machine=SERVER)

    def memory(machine, **given):
        return described(machine, **given)[0].target(run).device_bytes

    assert memory(here) == 2**34 - 2**20
    assert memory(here, gpus="4") is None and memory(here, nodes="2") is None
    assert memory(here, gpu_memory="8GiB") == 2**33 - fixed
    assert memory(SERVER) is None
    on_cpu = Described(replace(LAPTOP, gpu_bytes=2**34)).target(resolved())
    assert on_cpu.device_bytes is None
