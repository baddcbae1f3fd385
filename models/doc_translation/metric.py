"""What is measured on a split, on translations that the model wrote by itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.doc_translation.decoding import greedy, texts
from models.doc_translation.images import blank
from models.doc_translation.scores import SIZE, Bleu, plain_text
from models.doc_translation.structure import steds
from models.doc_translation.vocabulary import Vocabulary


class TranslationMetric:
    """val_bleu, val_bleu_pt, val_steds, and for information the teacher-forced val_loss.

    With `against_blank`, `val_bleu_gain`, too: how much better BLEU is than that of blank pages.
    """

    def __init__(
        self, vocabulary: Vocabulary, tokenize: str, count: int, against_blank: bool
    ) -> None:
        """`count` tokens are written for each page."""
        self.vocabulary, self.count = vocabulary, count
        self.against_blank = against_blank
        self.bleu = Bleu(tokenize)

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Loss, tokens, STEDS, pages, and the counts of three BLEUs; float64.

        Always the same number of calls of `model`. Collective where the model is sharded.
        """
        views = batch["page_global"], batch["page_local"]
        memory = model(*views)
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
        references = batch["references"]
        written = texts(greedy(model, memory, self.count, self.vocabulary), self.vocabulary)
        counts = [loss.item(), batch["units"]]
        counts += [math.fsum(map(steds, written, references)), len(references)]
        counts += self.bleu.counts(written, references)
        counts += self.bleu.counts(
            [plain_text(text) for text in written], [plain_text(text) for text in references]
        )
        counts += self._blank_counts(model, views, references)
        device = "cpu" if memory.device.type == "mps" else memory.device  # it has no float64
        return torch.tensor(counts, dtype=torch.float64, device=device)

    def _blank_counts(
        self, model: Module, views: tuple[Tensor, Tensor], references: list[str]
    ) -> list[float]:
        if not self.against_blank:
            return [0.0] * SIZE
        memory = model(*blank(*views))
        written = texts(greedy(model, memory, self.count, self.vocabulary), self.vocabulary)
        return self.bleu.counts(written, references)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts."""
        loss, tokens, similarity, pages, *rest = counts.tolist()
        bleu, plain, blank = (
            self.bleu.score(rest[start : start + SIZE]) for start in range(0, 3 * SIZE, SIZE)
        )
        metrics = {
            "val_bleu": bleu,
            "val_bleu_pt": plain,
            "val_steds": similarity / pages,
            "val_loss": loss / tokens,
        }
        if self.against_blank:
            metrics["val_bleu_gain"] = bleu - blank
        return metrics
