"""The cache of keys and values of a decoder of transformers, whose name depends on the version."""

from __future__ import annotations

from functools import lru_cache
from inspect import signature
from typing import Any

from torch.nn import Module


def cache_name(decoder: Module) -> str:
    """The argument, and the field of the output, that holds the cache: newer versions renamed it.

    The other name works with a warning.
    """
    kind: Any = type(decoder)
    return _name(kind)


@lru_cache
def _name(kind: Any) -> str:
    return "cache" if "cache" in signature(kind.forward).parameters else "past_key_values"
