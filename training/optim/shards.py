"""The part of a tensor that this rank holds, and the groups of an optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Groups = list[dict[str, Any]]
"""The parameter groups of an optimizer."""


def shard(tensor: Any) -> Tensor:
    """The shard of this rank of a DTensor; another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
