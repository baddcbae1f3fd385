"""The host queues a step without waiting for the device; what is left is listed here."""

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException

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
    """Without a GPU: test_deterministic_steps.py counts reads, too."""
    place = torch.device("cuda", 0)
    assert host_reads.of_a_family(tmp_path, family, *sets, device=place) == {}


@pytest.mark.gpu
def test_a_read_of_a_gpu_is_refused(tmp_path):
    task = ReadingTask(dtype=torch.float32)
    with pytest.raises(RuntimeError, match="synchronizing"):
        host_reads.of_a_family(tmp_path, "language", task=task, device=torch.device("cuda", 0))


class ReadingTask(TinyTask):
    """A task that reads its device: by `if`, a copy each way, and a new number."""

    channels_last = False
    by_mask = False

    def loss(self, model, batch):
        error = model(batch["x"]).square()
        if self.by_mask:
            error = error[error > 1]
        if error.sum() > 0:
            error = error + 1
        scale = torch.tensor(1.0, device=error.device)
        return Loss(error.sum() * scale, {"mean": error.mean().cpu().to(error.device)})


def test_each_read_of_each_micro_batch_is_counted(tmp_path):
    task = ReadingTask(dtype=torch.float32)
    reads = host_reads.of_a_family(tmp_path, "language", task=task, accumulation=2)
    assert reads == {"tests/training/test_host_reads.py:loss": 4 * 2}
    task.by_mask = True
    with pytest.raises(DynamicOutputShapeException):
        host_reads.of_a_family(tmp_path, "language", task=task, accumulation=2)


CHECK = "training/optim/nonfinite.py:"
SETTINGS = [
    ("precision=fp16", {"engines/optimizer_step.py:_fp16": 1}),
    ("train.on_nonfinite=skip 3", {f"{CHECK}_are_finite": 1, f"{CHECK}_take_or_skip": 2}),
]


@pytest.mark.parametrize(("change", "expected"), SETTINGS)
def test_only_loss_scaling_and_skipping_wait_in_each_step(tmp_path, change, expected):
    assert host_reads.of_a_family(tmp_path, "language", change) == expected


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
