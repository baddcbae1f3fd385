"""Models with frozen parts."""

from __future__ import annotations

from torch import nn


class HasFrozenParts(nn.Module):
    """A model whose parts can be frozen: no training, dropout or running statistics."""

    _frozen: tuple[nn.Module, ...] = ()  # a tuple, so that they are not registered twice

    def freeze(self, *parts: nn.Module) -> None:
        """Freeze these parts of the model, and no others."""
        self._frozen = parts
        for part in parts:
            part.requires_grad_(False)
            part.eval()

    def train(self, mode: bool = True) -> HasFrozenParts:
        """As for any module, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self
