"""The part of a tensor that this rank holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def shard(tensor: Any) -> Tensor:
    """The shard of this rank of a DTensor; another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
