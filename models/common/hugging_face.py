"""Local folders of transformers: configuration, tokenizer, structure and stored tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_module_registration_hook

from gearshift.models.base import DataError, Facts, Tensors
from gearshift.models.common.data_reports import library_errors, listed

KEY = "model.pretrained"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_LOCAL: Facts = {"local_files_only": True, "trust_remote_code": False}
"""No download, and no code of a folder is run."""
_NAMED = 3
_MOST_LAYERS = 10_000
_MOST_MODULES = 300_000
"""Three times those of the largest models with experts; made in half a minute."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bar and the warnings of transformers; we report what is missing."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


@contextmanager
def load_errors(folder: Path, allowed: str) -> Iterator[None]:
    """Raise what transformers raises, of many kinds by version and architecture, as DataError.

    Also where it makes so many modules that it might take hours, or fill the memory.
    """
    modules = 0

    def count(owner: Module, name: str, module: Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise ValueError(f"its model has more than {_MOST_MODULES} modules")

    counting = register_module_module_registration_hook(count)
    message = f"{KEY} '{folder}' cannot be loaded"
    try:
        with library_errors(message, str(folder / CONFIG), allowed=allowed), quiet():
            yield
    finally:
        counting.remove()


def read_config(folder: Path, allowed: str) -> Any:
    """The configuration of the model in `folder`. Reads the disk. Raises DataError."""
    from transformers import AutoConfig

    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{KEY} '{folder}' has no {CONFIG}",
            where=str(folder.absolute()),
            allowed=allowed,
            hint=f"--set {KEY}=hf:OWNER/NAME  downloads a model of the Hugging Face hub",
        )
    with load_errors(folder, allowed):
        _check_depth(json.loads((folder / CONFIG).read_bytes()))
        return AutoConfig.from_pretrained(str(folder), **_LOCAL)


def _check_depth(values: Any, name: str = "") -> None:
    """Raise ValueError for too many layers: configurations of transformers list each of them."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_depth(value, key)
    elif isinstance(values, int) and "layer" in name and values > _MOST_LAYERS:
        raise ValueError(f"{name} is {values}, of at most {_MOST_LAYERS}")


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`, or its tokenizer.json alone. Disk access; raises DataError."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    hint = "save it with  AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
    models = [*folder.glob("*.model"), *folder.glob("*.spm")]
    if models and find_spec("sentencepiece") is None:
        hint = f"pip install sentencepiece  reads {models[0].name}"
    with library_errors(
        f"transformers cannot load a tokenizer from '{folder}'",
        str(folder.absolute()),
        allowed=f"the tokenizer of the pretrained model, best with {TOKENIZER}",
        hint=hint,
    ):
        if (folder / TOKENIZER).is_file() and not (folder / TOKENIZER_CONFIG).is_file():
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER))
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **_LOCAL)
        files = {TOKENIZER, *tokenizer.vocab_files_names.values()} - {TOKENIZER_CONFIG}
        if tokenizer.vocab_files_names and not any((folder / name).is_file() for name in files):
            raise ValueError(f"none of {', '.join(sorted(files))} exists")  # it would be empty
        return tokenizer


def without_values(kind: Any, config: Any) -> Any:
    """The model in float32 that `kind`, an auto class of transformers, makes of `config`.

    The values of its weights are undefined, and its tied weights are tied. No code of a folder is
    run.
    """
    from transformers.initialization import no_init_weights

    config.dtype = torch.float32
    with no_init_weights():
        inner = kind.from_config(config, trust_remote_code=False)
    inner.tie_weights()
    return inner


@dataclass(frozen=True)
class Coverage:
    """Which tensors of a model its files have, by name."""

    matched: Sequence[str] = ()
    missing: Sequence[str] = ()
    unexpected: Sequence[str] = ()
    """In the files only."""
    wrong_shape: Sequence[str] = ()

    @property
    def random(self) -> Sequence[str]:
        """The tensors that are initialized at random."""
        return (*self.missing, *self.wrong_shape)

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {kind: len(names) for kind, names in vars(self).items()}

    def render(self) -> str:
        """The first names of each kind, and how many more there are; empty: nothing differs."""
        kinds = {
            "missing": self.missing,
            "another shape": self.wrong_shape,
            "unexpected": self.unexpected,
        }
        texts = [f"{kind}: {listed(names, _NAMED)}" for kind, names in kinds.items() if names]
        return "; ".join(texts)


def compare(tensors: Tensors, stored: Facts) -> Coverage:
    """Which of `tensors` the `stored` ones, which have a shape, can overwrite."""
    matched: list[str] = []
    wrong_shape: list[str] = []
    for name in sorted(tensors.keys() & stored.keys()):
        is_equal = tuple(tensors[name].shape) == tuple(stored[name].shape)
        (matched if is_equal else wrong_shape).append(name)
    return Coverage(
        matched,
        missing=sorted(tensors.keys() - stored.keys()),
        unexpected=sorted(stored.keys() - tensors.keys()),
        wrong_shape=wrong_shape,
    )


def from_pretrained(kind: Any, folder: Path) -> tuple[Any, Coverage]:
    """The model of `kind` that transformers loads, which also converts outdated names.

    Reads the disk; no pickle. Raises what transformers raises.
    """
    # On the CPU: it refuses a model without values, as other ranks build one.
    with quiet(), torch.device("cpu"):
        inner, report = kind.from_pretrained(
            str(folder),
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            **_LOCAL,
        )
    coverage = Coverage(
        missing=sorted(report["missing_keys"]),
        unexpected=sorted(report["unexpected_keys"]),
        wrong_shape=sorted(name for name, *_ in report["mismatched_keys"]),
    )
    return inner, coverage


def has_values(tensor: Tensor) -> bool:
    """Whether `tensor` has memory: not of a plan, nor of a rank that gets it from another one."""
    return type(tensor) in (Tensor, Parameter) and not tensor.is_meta


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file."""

    path: str
    name: str
    shape: tuple[int, ...]

    def read_into(self, tensor: Tensor) -> None:
        """Overwrite `tensor` with the values, if it has memory. Disk access."""
        if has_values(tensor):
            with torch.no_grad(), safe_open(self.path, "pt") as file:
                tensor.copy_(file.get_tensor(self.name))


def stored_tensors(source: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, or of all those in a folder, by name. Disk access."""
    tensors = {}
    for path in sorted(source.glob("*.safetensors")) if source.is_dir() else [source]:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(name).get_shape())
                tensors[name] = StoredTensor(str(path), name, shape)
    return tensors


class StoredWeights:
    """The stored tensors of a folder by the names of a whole model of transformers.

    Files of a base model lack a prefix, or have one; a tied weight is stored under one name.
    """

    def __init__(self, inner: Any, folder: Path) -> None:
        """Reads names and shapes from the disk."""
        self.tensors = stored_tensors(folder)
        self._prefix = f"{inner.base_model_prefix}."
        self._ignored = tuple(getattr(inner, "_keys_to_ignore_on_load_unexpected", None) or ())
        weights = [*inner.named_parameters(remove_duplicate=False), *inner.named_buffers()]
        groups: dict[int, list[str]] = {}
        self.tied: dict[str, list[str]] = {}
        for name, weight in weights:
            group = groups.setdefault(id(weight), [])
            group.append(name)
            self.tied[name] = group
        """For each parameter and buffer of the model the names of those tied to it, and its own."""

    def named(self, name: str) -> StoredTensor | None:
        """The stored tensor of that name, in one of its forms."""
        forms = (name, name.removeprefix(self._prefix), self._prefix + name)
        return next((self.tensors[form] for form in forms if form in self.tensors), None)

    def source(self, name: str) -> StoredTensor | None:
        """What the parameter or buffer `name` is read from; None: the files lack it."""
        names = (name, *self.tied.get(name, ()))
        return next(filter(None, map(self.named, names)), None)

    def unexpected(self) -> list[str]:
        """The stored tensors that the model lacks, but for those that it expects to be there."""
        known = {tensor.name for tensor in map(self.named, self.tied) if tensor is not None}
        unknown = []
        for name in sorted(self.tensors.keys() - known):
            if not any(re.search(pattern, name) for pattern in self._ignored):
                unknown.append(name)
        return unknown


def weights_of(inner: Module) -> dict[str, Tensor]:
    """The parameters and persistent buffers of a model by name; tied ones once."""
    stored = inner.state_dict(keep_vars=True)  # only the names: a plan has thousands of weights
    buffers = {name: buffer for name, buffer in inner.named_buffers() if name in stored}
    return dict(inner.named_parameters()) | buffers


def cache_name(decoder: Module) -> str:
    """The argument, and the field of the output, that holds the cache: newer versions renamed it.

    The other name works with a warning.
    """
    forward: Any = type(decoder).forward
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"
