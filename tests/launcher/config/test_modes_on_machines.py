"""Settings of a mode that a machine does not support are replaced and noted with their origin."""

import re
from dataclasses import replace
from itertools import cycle, product

import pytest

from launcher.config import presets
from launcher.config.schema import config_of
from models.catalog import FAMILIES
from tests.launcher.given import LAPTOP, NEW_CPU, ONE_GPU, SERVER, resolved

MAC = replace(LAPTOP, cores=10, ram_bytes=32 * 2**30, gpus=1, device="mps")
MODES = [mode for mode in presets.modes() if mode != "staged"]
ADAPTED_SECTIONS = ("precision", "loader", "memory")


def fitted(run):
    """Settings of mode and family that are adapted to the machine; `auto` leaves it the choice."""
    return {
        key: (value.replaced[0][0], value.value)
        for key, value in run.values.items()
        if value.origin.layer == "adapted to this machine"
        and key.split(".")[0] in ADAPTED_SECTIONS
        and value.replaced[0][0] != "auto"
    }


def test_every_adapted_setting_of_the_mode_is_noted_with_its_origin_and_reason():
    """Each family and each mode on each machine, in pairs."""
    machines = cycle([LAPTOP, NEW_CPU, MAC, SERVER, ONE_GPU])
    for (family, mode), machine in zip(product(FAMILIES, MODES), machines, strict=False):
        run = resolved(model=family, mode=mode, machine=machine)
        notes = [note for note in run.notes if note.split(":")[0].split(".")[0] in ADAPTED_SECTIONS]
        of_mode = [key for key in fitted(run) if run.values[key].replaced[0][1].layer == "mode"]
        assert sorted(note.split(":")[0] for note in notes) == sorted(of_mode), (family, mode)
        for note in notes:
            assert " instead of " in note and ".yaml:" in note and note.count(": ") >= 2


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            LAPTOP,
            {
                "precision": ("bf16", "fp32"),
                "loader.workers": (12, 2),
                "loader.pin_memory": (True, False),
                "memory.attention": ("flash", "auto"),
                "memory.empty_cache_every": (100, None),
                "memory.activation_checkpointing": ("every 4", "none"),
            },
        ),
        (
            MAC,
            {
                "precision": ("bf16", "fp32"),
                "loader.workers": (12, 10),
                "loader.pin_memory": (True, False),
                "memory.attention": ("flash", "auto"),
            },
        ),
        (ONE_GPU, {}),
    ],
    ids=["laptop", "mac", "gpu"],
)
def test_ultra_fast_is_adapted_to_each_machine(machine, expected):
    assert fitted(resolved(model="abr", mode="ultra-fast", machine=machine)) == expected


def test_a_mode_has_the_same_global_batch_and_steps_on_a_cpu_and_a_gpu():
    for family in FAMILIES:
        sizes = cycle(config_of(family).SIZES)
        for mode, size in zip(MODES, sizes, strict=False):
            model = f"{family}:{size}"
            default = resolved(model=model, machine=LAPTOP).batching
            cpu = resolved(model=model, mode=mode, machine=LAPTOP)
            gpu = resolved(model=model, mode=mode, machine=ONE_GPU)
            assert cpu.batching.global_batch == gpu.batching.global_batch, (model, mode)
            for key in ("train.epochs", "train.max_steps"):
                assert cpu.values[key].value == gpu.values[key].value, (model, mode)
            # Only larger steps keep the micro-batch of the default on a CPU.
            micro = gpu.batching.micro_batch
            if gpu.batching.global_batch > default.global_batch:
                micro = min(default.micro_batch, micro)
            assert cpu.batching.micro_batch == micro, (model, mode)


def test_a_smaller_micro_batch_is_noted_with_the_one_of_the_mode():
    notes = resolved(model="abr", mode="fast", machine=LAPTOP).notes
    found = [re.sub(r":[0-9]+:", ":N:", note) for note in notes if note.startswith("train.")]
    assert found == [
        "train.micro_batch: 32 instead of 64 of ds_configs/models/abr.yaml:N: no GPU: larger "
        "micro-batches take memory, and a CPU gains little from them",
        "train.accumulation: 4 instead of 2 of ds_configs/models/abr.yaml:N: train.micro_batch is "
        "32: the same samples",
    ]


def test_batch_numbers_of_the_user_are_kept_on_a_cpu():
    for setting, micro_batch, global_batch in (
        ("train.micro_batch=64", 64, 128),
        ("train.accumulation=2", 64, 128),
        ("train.global_batch=64", 32, 64),
    ):
        batching = resolved(setting, model="abr", mode="fast", machine=LAPTOP).batching
        assert (batching.micro_batch, batching.global_batch) == (micro_batch, global_batch), setting


def test_flash_attention_is_dropped_without_its_precision():
    run = resolved(model="doc_translation", mode="fast", machine=ONE_GPU, precision="fp32")
    assert fitted(run) == {"memory.attention": ("flash", "auto")}
    [note] = [note for note in run.notes if note.startswith("memory.attention")]
    assert note.endswith("flash attention needs a 16-bit precision, and precision is fp32")
    unchanged = resolved(model="doc_translation", mode="fast", machine=ONE_GPU)
    assert unchanged.settings.memory.attention == "flash"
