"""A small language model whose last rank runs out of memory at a chosen moment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gearshift.engines.base import Piece
from gearshift.models.base import Batch, SplitName
from gearshift.models.custom import CustomTask
from gearshift.models.language.config import SIZES
from gearshift.models.language.model import Transformer
from gearshift.training.checkpoint import tensor_file
from gearshift.training.checkpoint.manifest import CheckpointFile

MOMENTS = ("forward", "backward", "optimizer step", "evaluation", "save")
MOMENT, BYTES, BEGAN = "BALLAST_MOMENT", "BALLAST_BYTES", "BALLAST_BEGAN"
"""Environment variables: one of MOMENTS, or empty, the bytes that exceed the limit, and a file for
the time at which they are allocated."""
MICRO_BATCH = 8
"""Only micro-batches of this size run out of memory."""
STEP = 4
"""The step that runs out of memory, or that is evaluated and saved then."""
_TOKENS, _SAMPLES, _WORDS = 32, 64, 200


class Ballast(CustomTask):
    """Random tokens; a step has one micro-batch of MICRO_BATCH samples on each rank at first."""

    defaults: Mapping[str, Any] = {"schedule": {"name": "constant"}}
    fields: Sequence[str] = ("tokens",)

    def samples(self, split: SplitName) -> Sequence[tuple[Tensor]]:
        """Random tokens, [token] each."""
        draw = torch.Generator().manual_seed(len(split))
        return [(row,) for row in torch.randint(_WORDS, (_SAMPLES, _TOKENS), generator=draw)]

    def build(self) -> Module:
        """A transformer of size tiny, and what runs out of memory."""
        moment = os.environ.get(MOMENT, "")
        is_last = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
        self._moment = moment if is_last else ""
        self._steps, self._size, self._device = 0, 0, torch.device("cpu")
        _hook(self)
        return Transformer(SIZES["tiny"])

    def measure(self, model: Module, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy of the next token, summed over samples."""
        tokens = batch["tokens"]
        self._size, self._device = len(tokens), tokens.device
        # DeepSpeed's wrapper of the model is in training mode during an evaluation, too.
        trains = torch.is_grad_enabled()
        self._steps += trains
        self.allocate("forward" if trains else "evaluation")
        loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        if trains:
            loss.register_hook(lambda _gradient: self.allocate("backward"))
        return {"loss": loss / (tokens.shape[1] - 1)}

    def allocate(self, moment: str) -> None:
        """Fill more memory than there is, if now is the moment: the kernel kills this process."""
        if moment != self._moment or self._size < MICRO_BATCH or self._steps < STEP:
            return
        if BEGAN in os.environ:
            Path(os.environ[BEGAN]).write_text(repr(time.time()))
        torch.full((int(os.environ[BYTES]),), 1, dtype=torch.uint8, device=self._device)
        raise AssertionError("the memory was not limited")


_tasks: list[Ballast] = []
"""The newest task is the last: a process may train again."""


def _hook(task: Ballast) -> None:
    """Let the newest task allocate in optimizer steps and saves, which no task sees itself."""
    _tasks.append(task)
    if len(_tasks) > 1:
        return
    register_optimizer_step_pre_hook(lambda *_: _tasks[-1].allocate("optimizer step"))
    write = tensor_file.write_rank_file

    def written(path: Path, first: bytes, pieces: Sequence[Piece]) -> CheckpointFile:
        file = write(path, first, pieces)
        _tasks[-1].allocate("save")  # the shard is on disk, the checkpoint is not complete
        return file

    tensor_file.write_rank_file = written
