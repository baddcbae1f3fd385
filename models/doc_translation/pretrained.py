"""Weights from local folders of transformers, put into the parts of the model that they fit."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.base import DataError

log = logging.getLogger(__name__)

PARTS = {"global": "global_encoder", "local": "local_encoder", "decoder": "decoder"}
"""A subfolder, and the attribute of the model that it fills."""

ENOUGH = 0.95
"""Share of a part's tensors that its folder must fill."""

LEGAL = "a folder with " + ", ".join(f"{name}/" for name in PARTS) + ", as transformers saves them"
_LAYER = re.compile(r"(.*\blayer\.)(\d+)(\..*)")


@dataclass
class Report:
    """How the tensors of a folder and those of a part fit together, by name."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Of ours, what the folder does not have."""
    unexpected: list[str] = field(default_factory=list)
    """Of the folder, what we have no place for."""
    wrong_shape: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of our tensors, how many are filled."""
        ours = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        return len(self.matched) / ours

    def counts(self) -> dict[str, int]:
        """How many there are of each."""
        return {name: len(found) for name, found in vars(self).items()}


def load(
    model: Module, folder: Path, partial: Sequence[str], take_layers: Sequence[int] | None
) -> dict[str, Report]:
    """Fill the parts of `model` whose subfolder is there; tells each in the log.

    `take_layers` numbers the layers of the pretrained decoder that ours take, in order. Reads from
    disk, no pickle, downloads nothing. Raises DataError; where less than 95 % of a part is filled,
    unless `partial` names it.
    """
    there = [name for name in PARTS if (folder / name).is_dir()]
    if not there:
        raise DataError(
            f"model.pretrained '{folder}' holds none of the folders {', '.join(PARTS)}",
            where=f"looked in {folder.absolute()}",
            allowed=LEGAL,
        )
    reports = {}
    for name in there:
        theirs = _tensors(folder / name, name == "decoder")
        if name == "decoder" and take_layers is not None:
            theirs = _taken(theirs, take_layers, folder / name)
        report = reports[name] = fill(getattr(model, PARTS[name]), theirs)
        _tell(name, report)
        if report.share < ENOUGH and name not in partial:
            raise _too_few(name, report, folder / name)
    return reports


def _tensors(folder: Path, is_decoder: bool) -> Mapping[str, Tensor]:
    """The weights of a model under today's names. transformers knows how they were called."""
    import transformers

    if not (folder / "config.json").is_file():
        raise DataError(f"'{folder}' holds no config.json", where="model.pretrained", allowed=LEGAL)
    kind: Any = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModel
    is_pair = _model_type(folder) == "vision-encoder-decoder"
    if is_pair:  # a whole Donut or Nougat
        kind = transformers.VisionEncoderDecoderModel
    try:
        found, told = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # by kind of fault OSError, ValueError, KeyError, SafetensorError
        raise DataError(
            f"'{folder}' cannot be loaded: " + str(error).strip().split("\n")[0],
            where="model.pretrained",
            allowed="config.json and *.safetensors of a model that transformers knows",
        ) from None
    if is_pair:
        return dict(found.encoder.named_parameters())
    drawn = set(told["missing_keys"])  # by transformers, at random
    return {name: x for name, x in found.named_parameters() if name not in drawn}


def _model_type(folder: Path) -> str | None:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None  # transformers tells what is wrong with it


def fill(part: Module, theirs: Mapping[str, Tensor]) -> Report:
    """Copy into `part` the tensors that have its names and shapes.

    A prefix that only one of the two has, such as `bert.`, is no difference.
    """
    ours = {name: p for name, p in part.named_parameters()}
    known = {_bare(name): name for name in ours}
    report = Report()
    for name, tensor in theirs.items():
        own = known.get(_bare(name))
        if own is None:
            report.unexpected.append(name)
        elif ours[own].shape != tensor.shape:
            report.wrong_shape.append(own)
        elif own not in report.matched:
            report.matched.append(own)
            with torch.no_grad():
                ours[own].copy_(tensor)
    told = {*report.matched, *report.wrong_shape}
    report.missing = [name for name in ours if name not in told]
    return report


def _bare(name: str) -> str:
    return re.sub(r"^(beit|donut|swin|bert)\.", "", name)


def _taken(theirs: Mapping[str, Tensor], layers: Sequence[int], folder: Path) -> dict[str, Tensor]:
    """Only `layers`, numbered from 0 on. Raises DataError where one is not there."""
    matches = {name: _LAYER.fullmatch(name) for name in theirs}
    there = sorted({int(match[2]) for match in matches.values() if match})
    if lacking := [number for number in layers if number not in there]:
        raise DataError(
            f"model.take_layers {list(layers)}: the pretrained decoder has no layer {lacking[0]}",
            where=str(folder),
            allowed=", ".join(map(str, there)),
        )
    dropped = [number for number in there if number not in layers]
    log.info("pretrained decoder: takes layers %s, drops %s", list(layers), dropped)
    place = {number: i for i, number in enumerate(layers)}
    kept = {}
    for name, tensor in theirs.items():
        match = matches[name]
        if match is None:
            kept[name] = tensor
        elif int(match[2]) in place:
            kept[f"{match[1]}{place[int(match[2])]}{match[3]}"] = tensor
    return kept


def _tell(name: str, report: Report) -> None:
    counts = ", ".join(f"{count} {what}" for what, count in report.counts().items())
    log.info("pretrained %s: %s (%.0f %%)", name, counts, 100 * report.share)


def _too_few(name: str, report: Report, folder: Path) -> DataError:
    examples = ", ".join((report.missing + report.wrong_shape)[:3])
    return DataError(
        f"'{folder}' fills {report.share:.0%} of the part '{name}'; left are such as {examples}",
        where="model.pretrained; "
        + ", ".join(f"{what}: {count}" for what, count in report.counts().items()),
        allowed=f"at least {ENOUGH:.0%}",
        fix=f"--set 'model.partial=[{name}]' if that is meant",
    )
