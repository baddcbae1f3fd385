"""Pretrained weights of local transformers folders for the parts of the model."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module

from models.base import DataError
from models.common.data_files import cause_of
from models.common.pretrained_weights import StoredTensor, stored_tensors

log = logging.getLogger(__name__)

PARTS = {"global": "global_encoder", "local": "local_encoder", "decoder": "decoder"}
"""Subfolder, and the model attribute that it fills."""

MIN_FILLED = 0.95
"""Minimum share of a part's tensors that its folder must fill."""

ALLOWED = (
    "a folder with "
    + ", ".join(f"{name}/" for name in PARTS)
    + ", each in the layout of transformers"
)
_T = TypeVar("_T", Tensor, StoredTensor)
_LAYER = re.compile(r"(.*\blayer\.)(\d+)(\..*)")


@dataclass
class TensorMatches:
    """Tensor names of a part by how the folder matches them."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Tensors of the part that the folder lacks."""
    unexpected: list[str] = field(default_factory=list)
    """Tensors of the folder without a counterpart in the part."""
    wrong_shape: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the part's tensors that are filled."""
        total = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        return len(self.matched) / total

    def counts(self) -> dict[str, int]:
        """Number of tensors in each list."""
        return {name: len(names) for name, names in vars(self).items()}


def load(
    model: Module,
    folder: Path,
    parts: Collection[str],
    partial: Sequence[str],
    take_layers: Sequence[int] | None,
) -> dict[str, TensorMatches]:
    """Fill those `parts` of `model` that have a subfolder, and log the result of each.

    `parts`: some of PARTS. `take_layers`: numbers of the pretrained decoder layers to use, in
    order. Disk access; no download, no pickle. Raises DataError, also if less than 95 % of a part
    is filled and `partial` does not name it.
    """
    present = [name for name in PARTS if (folder / name).is_dir()]
    if not present:
        raise DataError(
            f"model.pretrained '{folder}' has none of the folders {', '.join(PARTS)}",
            where=str(folder.absolute()),
            allowed=ALLOWED,
        )
    reports = {}
    for name in (name for name in present if name in parts):
        tensors = _tensors(folder / name, name == "decoder")
        if name == "decoder" and take_layers is not None:
            tensors = _select_layers(tensors, take_layers, folder / name)
        report = reports[name] = fill(getattr(model, PARTS[name]), tensors)
        counts = ", ".join(f"{count} {what}" for what, count in report.counts().items())
        log.info("pretrained %s: %s (%.0f %%)", name, counts, 100 * report.share)
        if report.share < MIN_FILLED and name not in partial:
            raise _too_few_filled(name, report, folder / name)
    return reports


def _tensors(folder: Path, is_decoder: bool) -> Mapping[str, Tensor | StoredTensor]:
    """Weights of a model: those in its files, or, under outdated names, those of transformers."""
    import transformers

    if not (folder / "config.json").is_file():
        raise DataError(f"'{folder}' has no config.json", where="model.pretrained", allowed=ALLOWED)
    kind: Any = transformers.AutoModelForCausalLM if is_decoder else transformers.AutoModel
    is_pair = _model_type(folder) == "vision-encoder-decoder"
    if is_pair:  # a whole Donut or Nougat
        kind = transformers.VisionEncoderDecoderModel
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), **options)
        with torch.device("meta"):
            unread = kind(config) if is_pair else kind.from_config(config)
        if (stored := _stored(unread, folder)) is not None:
            return _of_encoder(stored) if is_pair else stored
        model, loading_info = kind.from_pretrained(
            str(folder), use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError and others
        raise DataError(
            f"'{folder}' cannot be loaded: {cause_of(error)}",
            where="model.pretrained",
            allowed="config.json and *.safetensors of a model that transformers supports",
        ) from None
    if is_pair:
        return _of_encoder(dict(model.named_parameters()))
    initialized = set(loading_info["missing_keys"])  # at random, by transformers
    return {name: x for name, x in model.named_parameters() if name not in initialized}


def _of_encoder(tensors: Mapping[str, _T]) -> dict[str, _T]:
    prefix = "encoder."
    return {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}


def _stored(model: Any, folder: Path) -> dict[str, StoredTensor] | None:
    """The tensors in the files of `folder` for parameters of `model`, by name.

    None if some have no counterpart on either side: their names may be outdated. Disk access.
    """
    model.tie_weights()
    tensors = stored_tensors(folder)
    prefix = f"{model.base_model_prefix}."  # in the names of either side

    def stored(name: str) -> StoredTensor | None:
        forms = (name, name.removeprefix(prefix), prefix + name)
        return next((tensors[form] for form in forms if form in tensors), None)

    parameters = {name: stored(name) for name, _ in model.named_parameters()}
    known = {tensor.name for name in model.state_dict() if (tensor := stored(name))}
    if None in parameters.values() and tensors.keys() - known:
        return None
    return {name: tensor for name, tensor in parameters.items() if tensor}


def _model_type(folder: Path) -> str | None:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None  # transformers reports the error


def fill(part: Module, tensors: Mapping[str, Tensor | StoredTensor]) -> TensorMatches:
    """Copy tensors of matching name and shape into `part`.

    A model prefix, for example `bert.`, is ignored.
    """
    parameters = dict(part.named_parameters())
    known = {_without_prefix(name): name for name in parameters}
    report = TensorMatches()
    for name, tensor in tensors.items():
        target = known.get(_without_prefix(name))
        if target is None:
            report.unexpected.append(name)
        elif parameters[target].shape != tensor.shape:
            report.wrong_shape.append(target)
        elif target not in report.matched:
            report.matched.append(target)
            if isinstance(tensor, StoredTensor):
                tensor.read_into(parameters[target])
            else:
                with torch.no_grad():
                    parameters[target].copy_(tensor)
    present = {*report.matched, *report.wrong_shape}
    report.missing = [name for name in parameters if name not in present]
    return report


def _without_prefix(name: str) -> str:
    return re.sub(r"^(beit|donut|swin|bert)\.", "", name)


def _select_layers(
    tensors: Mapping[str, Tensor | StoredTensor], layers: Sequence[int], folder: Path
) -> dict[str, Tensor | StoredTensor]:
    """Keep only `layers`, renumbered from 0. Raises DataError if one does not exist."""
    matches = {name: _LAYER.fullmatch(name) for name in tensors}
    existing = sorted({int(match[2]) for match in matches.values() if match})
    if missing := [number for number in layers if number not in existing]:
        raise DataError(
            f"model.take_layers {list(layers)}: the pretrained decoder has no layer {missing[0]}",
            where=str(folder),
            allowed=", ".join(map(str, existing)),
        )
    dropped = [number for number in existing if number not in layers]
    log.info("pretrained decoder: uses layers %s, drops layers %s", list(layers), dropped)
    position = {number: i for i, number in enumerate(layers)}
    selected = {}
    for name, tensor in tensors.items():
        match = matches[name]
        if match is None:
            selected[name] = tensor
        elif int(match[2]) in position:
            selected[f"{match[1]}{position[int(match[2])]}{match[3]}"] = tensor
    return selected


def _too_few_filled(name: str, report: TensorMatches, folder: Path) -> DataError:
    examples = ", ".join((report.missing + report.wrong_shape)[:3])
    return DataError(
        f"'{folder}' fills {report.share:.0%} of the part '{name}'; missing: {examples}",
        where="model.pretrained; "
        + ", ".join(f"{what}: {count}" for what, count in report.counts().items()),
        allowed=f"at least {MIN_FILLED:.0%}",
        fix=f"--set 'model.partial=[{name}]'  to accept this",
    )
