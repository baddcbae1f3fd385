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
    StoredTensor,
    StoredWeights,
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
_LAYER = re.compile(r"(.*\blayer\.)(\d+)(\..*)")
_PREFIX = re.compile(r"^(beit|donut|swin|bert)\.")
"""Of the names of tensors in a model with a head."""
Tensors = Mapping[str, Tensor | StoredTensor]


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
        share = len(coverage.matched) / (len(coverage.matched) + len(coverage.random))
        log.info(
            "pretrained %s: %s (%.0f %%)",
            name,
            counts,
            100 * share,
        )
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
    """Weights of a model: those in its files, or, under outdated names, those of transformers.

    Of a whole Donut or Nougat, those of its encoder.
    """
    import transformers

    kind: Any = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModel
    config = read_config(folder, _ALLOWED)
    is_pair = config.model_type == "vision-encoder-decoder"
    if is_pair:
        kind = transformers.VisionEncoderDecoderModel
    with load_errors(folder, _ALLOWED):
        with torch.device("meta"):  # only names and shapes are needed
            inner = kind(config) if is_pair else kind.from_config(config)
        inner.tie_weights()
        stored = StoredWeights(inner, folder)
        tensors: dict[str, Any] = {n: stored.source(n) for n, _ in inner.named_parameters()}
        # Names of an older version of transformers: it knows how they are called now.
        if None in tensors.values() and stored.unexpected():
            inner, coverage = from_pretrained(kind, folder)
            tensors = dict(inner.named_parameters()) | dict.fromkeys(coverage.random)
    prefix = "encoder." if is_pair else ""
    chosen = {}
    for name, tensor in tensors.items():
        if tensor is not None and name.startswith(prefix):
            chosen[name.removeprefix(prefix)] = tensor
    return chosen


def fill(part: Module, tensors: Tensors) -> Coverage:
    """Copy tensors of matching name and shape into `part`.

    A model prefix, for example `bert.`, is ignored.
    """
    parameters = {_PREFIX.sub("", name): tensor for name, tensor in part.named_parameters()}
    stored = {_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}
    coverage = compare(parameters, stored)
    with torch.no_grad():
        for name in coverage.matched:
            source = stored[name]
            if isinstance(source, StoredTensor):
                source.read_into(parameters[name])
            else:
                parameters[name].copy_(source)
    return coverage


def _select_layers(tensors: Tensors, layers: Sequence[int], folder: Path) -> Tensors:
    """Keep only `layers`, renumbered from 0. Raises DataError if one does not exist."""
    chosen = {}
    existing = set()
    for name, tensor in tensors.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            chosen[name] = tensor
            continue
        before, number, after = match.groups()
        existing.add(int(number))
        if int(number) in layers:
            chosen[f"{before}{layers.index(int(number))}{after}"] = tensor
    missing = set(layers) - existing
    if missing:
        raise DataError(
            f"model.take_layers {list(layers)}: the pretrained decoder has no layer {min(missing)}",
            where=str(folder),
            allowed=", ".join(map(str, sorted(existing))),
        )
    log.info("pretrained decoder: uses layers %s of %s", list(layers), sorted(existing))
    return chosen
