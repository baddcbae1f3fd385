"""Parts of transformers models: structure without values, stored tensors, and their coverage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import Module


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file."""

    path: str
    name: str
    shape: tuple[int, ...]

    def read_into(self, tensor: Tensor) -> None:
        """Overwrite `tensor` with the values. Disk access."""
        with torch.no_grad():
            torch.ops.gearshift.read_(tensor, self.path, self.name)


def stored_tensors(source: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, or of all those in a folder, by name. Disk access."""
    tensors = {}
    for path in sorted(source.glob("*.safetensors")) if source.is_dir() else [source]:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                shape = tuple(file.get_slice(name).get_shape())
                tensors[name] = StoredTensor(str(path), name, shape)
    return tensors


def _read(tensor: Tensor, path: str, name: str) -> None:
    with safe_open(path, "pt") as file:
        tensor.copy_(file.get_tensor(name))


_library = torch.library.Library("gearshift", "DEF")
_library.define("read_(Tensor(a!) tensor, str path, str name) -> ()")
_library.impl("read_", _read, "CPU")
_library.impl("read_", lambda tensor, path, name: None, "Meta")
"""Fake tensors have no values to overwrite."""


def cache_name(decoder: Module) -> str:
    """The argument, and the field of the output, that holds the cache: newer versions renamed it.

    The other name works with a warning.
    """
    kind: Any = type(decoder)
    return _name(kind)


@lru_cache
def _name(kind: Any) -> str:
    return "cache" if "cache" in signature(kind.forward).parameters else "past_key_values"


_NAMED = 3


@dataclass(frozen=True)
class Coverage:
    """Which tensors of a model its files have, by name."""

    missing: Sequence[str] = ()
    wrong_shape: Sequence[str] = ()
    """With both shapes."""
    unexpected: Sequence[str] = ()
    """In the files only."""

    @classmethod
    def reported(cls, report: Mapping[str, Any]) -> Coverage:
        """What from_pretrained of transformers reports."""
        shapes = sorted(
            f"{name} {list(stored)} instead of {list(expected)}"
            for name, stored, expected in report["mismatched_keys"]
        )
        return cls(sorted(report["missing_keys"]), shapes, sorted(report["unexpected_keys"]))

    @property
    def random(self) -> Sequence[str]:
        """The tensors that are initialized at random."""
        return (*self.missing, *self.wrong_shape)

    def render(self) -> str:
        """The first names of each kind, and how many more there are; empty: nothing differs."""
        kinds = {
            "missing": self.missing,
            "another shape": self.wrong_shape,
            "unexpected": self.unexpected,
        }
        return "; ".join(f"{kind}: {_few(names)}" for kind, names in kinds.items() if names)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


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


def without_values(kind: Any, config: Any) -> Any:
    """The model in float32 that `kind`, an auto class of transformers, makes of `config`.

    The values of its weights are undefined, and its tied weights are tied. No code of a folder is
    run.
    """
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # before transformers 5
        from transformers.modeling_utils import no_init_weights  # type: ignore
    setattr(config, "dtype" if hasattr(config, "dtype") else "torch_dtype", torch.float32)
    with no_init_weights():
        inner = kind.from_config(config, trust_remote_code=False)
    inner.tie_weights()
    return inner
