"""Frozen weights in the 16 bits of the computation; their fp32 values are in a file."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding, EmbeddingBag, Module, Parameter

from gearshift.engines.base import (
    Blocks,
    Engine,
    EngineError,
    Numbers,
    OptimizerSpec,
    Options,
    State,
)
from gearshift.engines.norms import norms_in_fp32
from gearshift.engines.precision import DTYPES
from gearshift.engines.state import is_deferred


class FrozenWeights:
    """An engine in bf16, fp16 or fp8 with frozen weights in 16 bits; all else is the engine's own.

    Under autocast vectors stay in fp32, as it rounds only what products and convolutions use.
    """

    def __init__(self, engine: Engine, options: Options, *, is_sharded: bool):
        """`is_sharded`: the engine computes with weights of 16 bits, not under autocast."""
        self._engine = engine
        self._is_sharded = is_sharded
        self._dtype = DTYPES[options.precision]
        self._folder = options.frozen_folder
        # The fp32 values of the intervals that this rank holds, by name.
        self._values: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Blocks) -> Module:
        frozen = {name: p for name, p in model.named_parameters() if self._is_rounded(p)}
        values = round_weights(frozen, self._dtype, keeps=self._folder is not None)
        if frozen and not self._is_sharded:
            norms_in_fp32(model)
            # fp32 rows: added to other activations, they decide the dtype of all that follow.
            tables = set(frozen.values())
            for embedding in model.modules():
                if isinstance(embedding, Embedding | EmbeddingBag) and embedding.weight in tables:
                    embedding.forward = partial(_widened, embedding.forward)  # type: ignore[method-assign]
        module = self._engine.prepare(model, optimizer, blocks)
        if frozen and self._folder is not None:
            pieces = [p for p in self._engine.state().pieces if p.name in frozen]
            self._values = _on_disk({p.name: p.data.numel() for p in pieces}, self._folder)
            for piece in pieces:
                if piece.name in values:
                    whole = values[piece.name].reshape(-1)
                    self._values[piece.name].copy_(whole[piece.start :][: piece.data.numel()])
        return module

    def state(self) -> State:
        state = self._engine.state()
        pieces = [replace(p, data=self._values.get(p.name, p.data)) for p in state.pieces]
        return replace(state, pieces=pieces)

    def load(self, steps: Numbers, loss_scale: Numbers) -> None:
        self._round()
        self._engine.load(steps, loss_scale)

    def refresh(self) -> None:
        self._round()
        self._engine.refresh()

    def _is_rounded(self, parameter: Parameter) -> bool:
        is_fp32 = parameter.dtype is torch.float32 and not parameter.requires_grad
        return is_fp32 and (self._is_sharded or parameter.dim() > 1)

    def _round(self) -> None:
        if not self._values:
            return
        for piece in self._engine.state().pieces:
            if piece.name in self._values:
                piece.data.copy_(self._values[piece.name])


def round_weights(
    parameters: Mapping[str, Parameter], dtype: torch.dtype, *, keeps: bool
) -> dict[str, Tensor]:
    """Round the parameters to `dtype`; if `keeps`, the values before, but for deferred ones."""
    values = {}
    for name, parameter in parameters.items():
        if is_deferred(parameter):
            parameter.data = torch.empty_like(parameter, dtype=dtype)
            continue
        if keeps and parameter.dtype != dtype:
            values[name] = parameter.detach()
        parameter.data = parameter.detach().to(dtype)
    return values


def _widened(forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    return forward(*args, **kwargs).float()


def _on_disk(sizes: Mapping[str, int], folder: Path) -> dict[str, Tensor]:
    """New fp32 tensors of `sizes` elements in a file of `folder` without a name.

    The system drops their pages from memory when it needs room. Raises EngineError.
    """
    total = 4 * sum(sizes.values())
    if not total:
        return {}
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process later
                os.posix_fallocate(file.fileno(), 0, total)
            else:
                file.truncate(total)
            flat = torch.frombuffer(mmap.mmap(file.fileno(), total), dtype=torch.float32)
    except OSError as error:
        raise EngineError(
            f"the fp32 values of frozen weights need {total:,} bytes in {folder}: {error.strerror}"
        ) from error
    return dict(zip(sizes, flat.split([*sizes.values()]), strict=True))
