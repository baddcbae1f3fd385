"""Machines described by options, and the errors of those options."""

from dataclasses import replace

import pytest

from gearshift.launcher.commands.plan import resolve_with
from gearshift.launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.plan.target import Described, describe
from tests.launcher.given import LAPTOP, SERVER, resolved


def described(here=LAPTOP, **values):
    diagnostics = []
    flags = {f"--{name.replace('_', '-')}": text for name, text in values.items()}
    return describe(flags, here, diagnostics), diagnostics


def test_gpus_memory_and_nodes():
    found, _ = described(gpus="4", gpu_memory="24GiB", ram="1TB", nodes="2")
    assert (found.machine.gpus, found.machine.device) == (4, "cuda")
    assert (found.machine.ram_bytes, found.machine.gpu_bytes) == (10**12, 24 * 2**30)
    target = found.target(on(found, engine="fsdp"))
    assert (target.nodes, target.ranks_per_node, target.ranks) == (2, 4, 8)
    fixed = CONTEXT_BYTES + NCCL_BYTES
    assert (target.device, target.device_bytes) == ("cuda", 24 * 2**30 - fixed)


def on(found, **options):
    """Settings of a run on the described nodes."""
    args = CliArgs(model="language:tiny", **options)
    return resolve_with(found, args, ())


def test_on_several_nodes_nproc_is_the_number_of_ranks_of_each():
    found, _ = described(gpus="8", nodes="2")
    run = on(found, engine="fsdp", options={"engine.nproc": ("--nproc", "2")})
    assert (run.nproc, run.world_size, run.batching.world_size) == (2, 4, 4)
    target = found.target(run)
    assert (target.ranks_per_node, target.ranks) == (2, 4)


@pytest.mark.parametrize(
    ("name", "memory", "has_bf16"), [("h200", 141, True), ("T4", 16, False), ("RTX-3090", 24, True)]
)
def test_a_named_gpu_has_the_memory_and_precision_of_its_data_sheet(name, memory, has_bf16):
    found, diagnostics = described(gpu=name)
    assert not diagnostics
    assert (found.machine.gpus, found.machine.gpu_bytes) == (1, memory * 2**30)
    assert found.machine.gpu_bf16 is has_bf16 and found.gpu is not None
    assert described(gpu=name, gpu_memory="8GiB", gpus="2")[0].machine.gpu_bytes == 2**33
    assert described(gpu_memory="12GiB")[0].machine.gpus == 1
    assert described(SERVER, gpu_memory="12GiB")[0].machine.gpus == SERVER.gpus


def test_an_option_that_is_no_number_or_name_is_an_error_with_its_key():
    values = {"gpus": "0", "nodes": "two", "gpu_memory": "24", "ram": "x", "gpu": "B99"}
    _, errors = described(**values)
    assert {error.key: error.value for error in errors} == {
        f"--{name.replace('_', '-')}": text for name, text in values.items()
    }
    fixes = {error.key: error.fix for error in errors if error.fix}
    assert fixes.pop("--gpu-memory") == "--gpu-memory 24GiB" and not fixes


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
