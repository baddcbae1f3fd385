"""Pretrained weights of local transformers folders for the parts of the model."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import listed
from gearshift.models.common.hugging_face import (
    Coverage,
    compare,
    from_pretrained,
    load_errors,
    read_config,
)

log = logging.getLogger(__name__)

PARTS = {"global": "global_encoder", "local": "local_encoder", "decoder": "decoder"}
"""Subfolder, and the model attribute that it fills."""
MIN_FILLED = 0.95
"""Minimum share of a part's tensors that its folder must fill."""
_ALLOWED = "config.json and *.safetensors of a model that transformers supports"
_LAYER = re.compile(r"\blayer\.(\d+)\.")
_PREFIX = re.compile(r"^(beit|donut|swin|bert)\.")
"""Of the names of tensors in a model with a head."""
Tensors = Mapping[str, Tensor]


def load(
    model: Module,
    folder: Path,
    parts: Collection[str],
    partial: Sequence[str],
    take_layers: Sequence[int] | None,
) -> dict[str, Coverage]:
    """Fill those `parts` of `model` that have a subfolder, and log the result of each.

    `parts`: some of PARTS. `take_layers`: numbers of the pretrained decoder layers to use, in
    order. Disk access; no download, no pickle. Raises DataError, also if less than 95 % of a part
    is filled and `partial` does not name it.
    """
    present = [name for name in PARTS if (folder / name).is_dir()]
    if not present:
        folders = ", ".join(PARTS)
        raise DataError(
            f"model.pretrained '{folder}' has none of the folders {folders}",
            where=str(folder.absolute()),
            allowed=f"a folder with some of {folders}, each in the layout of transformers",
        )
    reports = {}
    for name in filter(parts.__contains__, present):
        tensors = _tensors(folder / name, name == "decoder")
        if name == "decoder" and take_layers is not None:
            tensors = _select_layers(tensors, take_layers, folder / name)
        coverage = fill(model.get_submodule(PARTS[name]), tensors)
        reports[name] = coverage
        counts = ", ".join(f"{count} {what}" for what, count in coverage.counts.items())
        log.info("pretrained %s: %s", name, counts)
        share = len(coverage.matched) / (len(coverage.matched) + len(coverage.random))
        if share < MIN_FILLED and name not in partial:
            raise DataError(
                f"'{folder / name}' fills {share:.0%} of the part '{name}'; "
                f"missing: {listed(coverage.random, 3)}",
                where=f"model.pretrained; {counts}",
                allowed=f"at least {MIN_FILLED:.0%}",
                fix=f"--set 'model.partial=[{name}]'",
            )
    return reports


def _tensors(folder: Path, is_decoder: bool) -> Tensors:
    """The weights that the files of a model have; of a whole Donut or Nougat, of its encoder."""
    import transformers

    kind: Any = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModel
    prefix = ""
    if read_config(folder, _ALLOWED).model_type == "vision-encoder-decoder":
        kind = transformers.VisionEncoderDecoderModel
        prefix = "encoder."
    with load_errors(folder, _ALLOWED):
        inner, coverage = from_pretrained(kind, folder)
    tensors = {}
    for name, tensor in inner.named_parameters():
        if name.startswith(prefix) and name not in coverage.random:
            tensors[name.removeprefix(prefix)] = tensor
    return tensors


@torch.no_grad()
def fill(part: Module, tensors: Tensors) -> Coverage:
    """Copy tensors of matching name and shape into `part`.

    A model prefix, for example `bert.`, is ignored.
    """
    parameters = {_PREFIX.sub("", name): tensor for name, tensor in part.named_parameters()}
    stored = {_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}
    coverage = compare(parameters, stored)
    for name in coverage.matched:
        parameters[name].copy_(stored[name])
    return coverage


def _select_layers(tensors: Tensors, layers: Sequence[int], folder: Path) -> Tensors:
    """Keep only `layers`, renumbered from 0. Raises DataError if one does not exist."""
    chosen = {}
    existing = set()
    for name, tensor in tensors.items():
        match = _LAYER.search(name)
        if match is None:
            chosen[name] = tensor
            continue
        number = int(match[1])
        existing.add(number)
        if number in layers:
            chosen[_LAYER.sub(f"layer.{layers.index(number)}.", name)] = tensor
    missing = set(layers) - existing
    if missing:
        raise DataError(
            f"model.take_layers {list(layers)}: the pretrained decoder has no layer {min(missing)}",
            where=str(folder),
            allowed=", ".join(map(str, sorted(existing))),
        )
    log.info("pretrained decoder: uses layers %s of %s", list(layers), sorted(existing))
    return chosen
