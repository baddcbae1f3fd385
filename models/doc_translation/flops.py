"""Floating point operations of one page, counted by torch on a model without weights."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.doc_translation.config import Size
from models.doc_translation.model import DocTranslator


def per_sample(size: Size, time: int) -> float:
    """Forward and backward over one page and `time` tokens; backward is twice forward.

    Matrix products, convolutions and attention are counted, in the shapes that they have.
    """
    with torch.device("meta"):
        model = DocTranslator(size).eval()
        whole = torch.empty(1, 3, size.whole.pixels, size.whole.pixels)
        near = torch.empty(1, 3, *size.local.pixels)
        ids = torch.zeros(1, time, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            model(whole, near, decoder_ids=ids)
    return 3.0 * counter.get_total_flops()
