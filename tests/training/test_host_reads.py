"""The host queues a step without waiting for the device; what is left is listed here."""

import pytest
import torch

from engines.catalog import ENGINES, missing
from models.base import Loss
from models.catalog import FAMILIES
from tests.training import host_reads
from tests.training.tiny import TinyTask


def runs():
    """Families with settings; image and signal families take seconds each."""
    others = [
        ("doc_translation", ("model.stage=encoder",)),
        ("doc_translation", ("model.freeze_encoder=true",)),
        ("eeg_text", ("model.stage=encoder",)),
        ("language", ("model.freeze_layers=1",)),
        ("language", ("train.ema=0.9", "memory.activation_checkpointing=full")),
    ]
    return [
        pytest.param(family, sets, marks=[pytest.mark.slow] if family != "language" else [])
        for family, sets in [*((family, ()) for family in FAMILIES), *others]
    ]


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "sets"), runs())
def test_a_default_step_of_a_family_reads_nothing_from_a_gpu(tmp_path, family, sets):
    host_reads.of_a_family(tmp_path, family, *sets, device=torch.device("cuda", 0))


@pytest.mark.gpu
def test_a_read_of_a_gpu_is_refused(tmp_path):
    task = ReadingTask(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="synchronizing"):
        host_reads.of_a_family(tmp_path, "language", task=task, device=torch.device("cuda", 0))


class ReadingTask(TinyTask):
    """A task that reads its device."""

    channels_last = False

    def loss(self, model, batch):
        error = model(batch["x"]).square()
        return Loss(error.sum() * (2 if error.sum() > 0 else 1), {})


CHECK = "training/optim/nonfinite.py:"
ON_CPU = {
    "training/agreement.py:result": 1,  # of host memory on every device
    f"{CHECK}_numbers": 2,  # with other devices, after 50 steps
}
AVERAGE, AGREE = {"engines/optimizer_step.py:average": 1}, {"engines/world.py:agree": 1}
"""Which gradients there are: host memory on every device."""


@pytest.mark.parametrize("engine", ["local", "ddp", "oss", "fsdp", "zero2", "zero3-offload"])
def test_engines_add_no_read_to_those_of_their_library(two_ranks, engine):
    if absent := missing(ENGINES[engine]):
        pytest.skip(f"{absent[0]} is not installed")
    for reads in two_ranks.run(host_reads.of_an_engine, engine):
        ours = {where: n for where, n in reads.items() if not where.startswith("deepspeed/")}
        expected = {"local": AVERAGE, "ddp": AGREE, "oss": AGREE}
        assert ours == ON_CPU | expected.get(engine, {})
