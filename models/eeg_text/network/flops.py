"""Floating point operations of one sample, from the shapes of the model."""

from __future__ import annotations

from torch import nn

from models.eeg_text.network.attention import SelfAttention


def per_sample(model: nn.Module, tokens: int, text: float, is_encoded: bool = False) -> float:
    """Operations of forward and backward over `tokens` of EEG and `text` tokens of a sentence.

    Six for each weight and each place that it is multiplied with, and 12·d·T² for attention over
    T tokens of EEG; that of the text, over so few tokens, is left out. A third of it where a weight
    is frozen; nothing for the encoder where the EEG `is_encoded` before. Source: Chowdhery et al.,
    PaLM, 2022, appendix B.
    """
    total = 0.0
    for name, module in model.named_modules():
        if is_encoded and name.startswith("encoder."):
            continue
        if isinstance(module, SelfAttention):
            each = 12.0 if module.out_proj.weight.requires_grad else 4.0
            total += each * module.out_proj.in_features * tokens**2
        if not isinstance(module, nn.Linear | nn.Conv1d):
            continue
        places = float(tokens)
        if name.endswith("cnn.first"):
            places = 2.0 * tokens
        elif name.startswith("decoder.") and not _reads_eeg(name):
            places = text
        each = 6.0 if module.weight.requires_grad else 2.0
        total += each * module.weight.numel() * places
    return total


def _reads_eeg(name: str) -> bool:
    """Whether a layer of the decoder goes over the tokens of EEG."""
    return name.endswith(("bridge", "encoder_attn.k_proj", "encoder_attn.v_proj"))
