"""Metrics of generated translations: BLEU and structure similarity (STEDS)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.doc_translation.decoding import beam_search, texts
from models.doc_translation.images import blank
from models.doc_translation.vocabulary import Vocabulary

ORDER = 4
SIZE = 2 * ORDER + 2
"""Counts of corpus BLEU: matches and n-grams of each order, and two lengths."""

SCORES_SIZE = 2 + 2 * SIZE
"""Counts of Scores: STEDS, pages and two BLEUs."""

_TABLE_OR_FORMULA = re.compile(
    r"\\begin\{(table|tabular)(\*?)\}.*?\\end\{\1\2\}|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL
)


def plain_text(markdown: str) -> str:
    """`markdown` without tables and formulas, for BLEU-PT."""
    return _TABLE_OR_FORMULA.sub("", markdown)


class Bleu:
    """Corpus BLEU of sacrebleu, from counts that add up over batches and ranks.

    Sources: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """

    def __init__(self, tokenize: str) -> None:
        from sacrebleu.metrics import BLEU

        # force: no warning about tokenized text, because it is model output.
        self._inner: Any = BLEU(tokenize=tokenize, force=True)

    def counts(self, written: Sequence[str], references: Sequence[str]) -> list[float]:
        """Counts of non-empty `written` against `references`: SIZE numbers."""
        score = self._inner.corpus_score(list(written), [list(references)])
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def score(self, counts: Sequence[float]) -> float:
        """BLEU of summed `counts`, in [0, 100]."""
        *ngrams, sys_len, ref_len = (round(count) for count in counts)
        correct, total = ngrams[:ORDER], ngrams[ORDER:]
        smoothing = {"smooth_method": "exp", "max_ngram_order": ORDER}
        return float(self._inner.compute_bleu(correct, total, sys_len, ref_len, **smoothing).score)

    @property
    def signature(self) -> str:
        """sacrebleu signature, to be reported with the score."""
        self._inner.corpus_score(["a"], [["a"]])  # sets the number of references
        return str(self._inner.get_signature())


_HEADING = re.compile(r"(#{1,6})\s*(.*)", re.DOTALL)
_BLANK = re.compile(r"\n\s*\n")


@dataclass
class HeadingNode:
    """A heading with its subtree, or a paragraph."""

    kind: str
    has_text: bool
    level: int
    children: list[HeadingNode] = field(default_factory=list)

    def count(self) -> int:
        return 1 + sum(child.count() for child in self.children)


def tree(text: str) -> HeadingNode:
    """Tree of the headings and paragraphs of Markdown, separated by blank lines and headings."""
    root = HeadingNode("root", True, 0)
    path = [root]
    for part in _BLANK.split(text):
        in_paragraph = False
        for line in part.strip().split("\n"):
            heading = _HEADING.match(line)
            if heading is None:
                if line.strip() and not in_paragraph:
                    path[-1].children.append(HeadingNode("paragraph", True, 7))
                    in_paragraph = True
                continue
            in_paragraph = False
            node = HeadingNode("heading", bool(heading[2].strip()), len(heading[1]))
            while path[-1].level >= node.level:
                path.pop()
            path[-1].children.append(node)
            path.append(node)
    return root


def _update_cost(first: HeadingNode | None, second: HeadingNode | None) -> int:
    """0 for nodes of one kind with text, otherwise 1."""
    if first is None or second is None:
        return 1
    return int(first.kind != second.kind or not (first.has_text and second.has_text))


def steds(written: str, reference: str) -> float:
    """Structure similarity 100 · (1 − TED / nodes of the larger tree), without roots; in [0, 100].

    TED is the ordered tree edit distance with unit costs. Source: Zhang and Shasha, Simple Fast
    Algorithms for the Editing Distance between Trees and Related Problems, 1989.
    """
    import zss

    first, second = tree(written), tree(reference)
    nodes = max(first.count(), second.count()) - 1
    if nodes == 0:
        return 100.0
    distance = zss.distance(
        first,
        second,
        get_children=lambda node: node.children,
        insert_cost=lambda node: 1,
        remove_cost=lambda node: 1,
        update_cost=_update_cost,
    )
    return 100.0 * (1 - float(distance) / nodes)


class Scores:
    """BLEU, BLEU without tables and formulas, and STEDS of texts, from counts that add up."""

    def __init__(self, tokenize: str) -> None:
        self.bleu = Bleu(tokenize)

    def counts(self, written: Sequence[str], references: Sequence[str]) -> list[float]:
        """Counts of `written` against `references`: SCORES_SIZE numbers."""
        plain = [[plain_text(text) for text in side] for side in (written, references)]
        similarity = math.fsum(map(steds, written, references))
        bleus = [*self.bleu.counts(written, references), *self.bleu.counts(*plain)]
        return [similarity, len(references), *bleus]

    def result(self, counts: Sequence[float], suffix: str = "") -> dict[str, float]:
        similarity, pages, *rest = counts
        return {
            f"val_bleu{suffix}": self.bleu.score(rest[:SIZE]),
            f"val_bleu_pt{suffix}": self.bleu.score(rest[SIZE:]),
            f"val_steds{suffix}": similarity / pages,
        }


class TranslationMetric:
    """val_bleu, val_bleu_pt, val_steds and the teacher-forced val_loss.

    With `against_blank` also `val_bleu_gain`: BLEU minus BLEU of blank pages.
    """

    def __init__(self, vocabulary: Vocabulary, tokenize: str, count: int, against_blank: bool) -> None:
        """`count`: tokens generated per page."""
        self.vocabulary, self.count = vocabulary, count
        self.against_blank = against_blank
        self.scores = Scores(tokenize)

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Loss, tokens, the counts of scores and those of BLEU of blank pages; float64.

        Always the same number of model calls. Collective if the model is sharded.
        """
        views, references = (batch["page_global"], batch["page_local"]), batch["references"]
        memory = model(*views)
        loss = model(memory=memory, decoder_ids=batch["decoder_ids"], labels=batch["labels"])
        written = texts(beam_search(model, memory, self.count, self.vocabulary), self.vocabulary)
        counts = [loss.item(), batch["units"], *self.scores.counts(written, references)]
        of_blank = [0.0] * SIZE
        if self.against_blank:
            memory = model(*blank(*views))
            tokens = beam_search(model, memory, self.count, self.vocabulary)
            written = texts(tokens, self.vocabulary)
            of_blank = self.scores.bleu.counts(written, references)
        return counts_on(memory.device, [*counts, *of_blank])

    def result(self, counts: Tensor) -> dict[str, float]:
        loss, tokens, *rest = counts.tolist()
        metrics = {**self.scores.result(rest[:SCORES_SIZE]), "val_loss": loss / tokens}
        if self.against_blank:
            blank = self.scores.bleu.score(rest[SCORES_SIZE:])
            metrics["val_bleu_gain"] = metrics["val_bleu"] - blank
        return metrics


class BeamMetric:
    """val_bleu_beam, val_bleu_pt_beam and val_steds_beam: scores of a beam search."""

    def __init__(self, vocabulary: Vocabulary, tokenize: str, count: int, beams: int) -> None:
        """`count`: tokens generated per page."""
        self.vocabulary, self.count, self.beams = vocabulary, count, beams
        self.scores = Scores(tokenize)

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Counts of scores; float64.

        Always the same number of model calls. Collective if the model is sharded.
        """
        memory = model(batch["page_global"], batch["page_local"])
        tokens = beam_search(model, memory, self.count, self.vocabulary, self.beams)
        written = texts(tokens, self.vocabulary)
        return counts_on(memory.device, self.scores.counts(written, batch["references"]))

    def result(self, counts: Tensor) -> dict[str, float]:
        return self.scores.result(counts.tolist(), "_beam")


def counts_on(device: torch.device, counts: Sequence[float]) -> Tensor:
    """`counts` in float64 on `device`, or on the CPU for MPS, which has no float64."""
    target = "cpu" if device.type == "mps" else device
    return torch.tensor(counts, dtype=torch.float64, device=target)
